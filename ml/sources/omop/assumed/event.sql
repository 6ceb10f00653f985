-- No history: a record becomes known when its visit ends, else at the end of its day.
select
    t.*,
    greatest(t.{date}::date, v.visit_end_date::date)::timestamp + interval '1 day' - interval '1 microsecond' as recorded_at,
    false as removed
from {base} t
left join {visit_occurrence} v using (visit_occurrence_id, person_id)
