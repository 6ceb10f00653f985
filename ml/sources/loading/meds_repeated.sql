-- Rows whose version was there before, taken out.
with numbered as (
    select line, row_number() over (partition by subject_id, source_key, recorded_at order by line) as n from {staging}
)
delete from {staging} s using numbered d where d.line = s.line and d.n > 1 returning s.line, row_to_json(s)::text
