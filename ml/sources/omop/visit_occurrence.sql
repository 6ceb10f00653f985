-- One event per visit, at its start. Concept ids: https://athena.ohdsi.org, domain Visit.
select
    t.person_id::bigint as subject_id,
    coalesce(t.visit_start_datetime::timestamp, t.visit_start_date::timestamp) as time,
    'VISIT//' || case t.visit_concept_id
        when 9201 then 'inpatient'
        when 9202 then 'outpatient'
        when 9203 then 'emergency'
        when 262 then 'emergency_inpatient'
        else 'other'
    end as code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'visit_occurrence/' || t.visit_occurrence_id as source_key,
    t.removed as removed
from {visit_occurrence} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
