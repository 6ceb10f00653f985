-- The events as they were loaded: nothing is left to be done.
select
    t.subject_id::bigint as subject_id,
    t.time::timestamp as time,
    t.code,
    t.numeric_value::real as numeric_value,
    t.text_value,
    t.visit_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    t.source_key,
    t.removed
from {meds_events} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
