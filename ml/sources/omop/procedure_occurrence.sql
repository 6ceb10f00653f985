-- One event per procedure, coded as the source coded it (or by the standard concept, VIGIL_OMOP_CODES).
select
    t.person_id::bigint as subject_id,
    coalesce(t.procedure_datetime::timestamp, t.procedure_date::timestamp) as time,
    coalesce(
        case when {standard_codes} then coalesce(standard.code, source.standard_code) end,
        source.code,
        standard.code,
        'SOURCE//' || coalesce(t.procedure_source_value, '')
    ) as code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'procedure_occurrence/' || t.procedure_occurrence_id as source_key,
    t.removed as removed
from {procedure_occurrence} t
left join {code} source on source.concept_id = t.procedure_source_concept_id
left join {code} standard on standard.concept_id = t.procedure_concept_id
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
