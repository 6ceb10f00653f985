-- One event per procedure, coded as code.sql says.
select
    t.person_id::bigint as subject_id,
    coalesce(t.procedure_datetime::timestamp, t.procedure_date::timestamp) as time,
    t.code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'procedure_occurrence/' || t.procedure_occurrence_id as source_key,
    t.removed as removed
from {procedure_occurrence} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
