-- From staged rows to events.
--
-- MEDS does not say when a row became known. An event is taken as known at the end of its day; a birth, and what has no
-- time, with the subject's first other event: nobody is known before the records speak of him. Of whom nothing has a time
-- at all is known at the end of the dataset's last day.
-- The key of a row is made from what it says, so that a dataset that was made again, with more rows, keeps the keys of the
-- old ones. Rows that say the same are numbered.
-- A dataset that has recorded_at or source_key has them in every row; they are taken as they are.
insert into meds_events (
    subject_id, time, code, numeric_value, text_value, visit_id, recorded_at, source_key, removed
)
select
    t.subject_id,
    t.time,
    t.code,
    t.numeric_value,
    t.text_value,
    t.visit_id,
    coalesce(
        t.recorded_at,
        date_trunc('day', case
            when t.time is null or t.code = 'MEDS_BIRTH' then greatest(t.time, coalesce(f.first_time, f.last_time))
            else t.time
        end) + interval '1 day' - interval '1 microsecond'
    ),
    coalesce(t.source_key, 'events/' || t.hash || case when t.number > 1 then '/' || t.number else '' end),
    coalesce(t.removed, false)
from (
    select h.*, row_number() over (partition by h.hash order by h.time, h.code, h.line) as number
    from (
        select
            s.*,
            case when s.source_key is null then substr(
                md5(row(s.subject_id, s.time, s.code, s.numeric_value, s.text_value, s.visit_id)::text), 1, 16
            ) end as hash
        from {staging} s
    ) h
) t
left join (
    select
        f.subject_id,
        coalesce(min(f.time) filter (where f.code <> 'MEDS_BIRTH'), min(f.time)) as first_time,
        max(max(f.time)) over () as last_time
    from {staging} f
    group by f.subject_id
) f using (subject_id)
