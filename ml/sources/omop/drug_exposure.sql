-- One event per drug exposure, coded as the source coded it (or by the standard concept, VIGIL_OMOP_CODES).
select
    t.person_id::bigint as subject_id,
    coalesce(t.drug_exposure_start_datetime::timestamp, t.drug_exposure_start_date::timestamp) as time,
    coalesce(
        case when {standard_codes} then coalesce(standard.code, source.standard_code) end,
        source.code,
        standard.code,
        'SOURCE//' || coalesce(t.drug_source_value, '')
    ) as code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'drug_exposure/' || t.drug_exposure_id as source_key,
    t.removed as removed
from {drug_exposure} t
left join {code} source on source.concept_id = t.drug_source_concept_id
left join {code} standard on standard.concept_id = t.drug_concept_id
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
