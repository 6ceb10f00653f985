-- One event per diagnosis, coded as code.sql says.
select
    t.person_id::bigint as subject_id,
    coalesce(t.condition_start_datetime::timestamp, t.condition_start_date::timestamp) as time,
    t.code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'condition_occurrence/' || t.condition_occurrence_id as source_key,
    t.removed as removed
from {condition_occurrence} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
