-- One event per drug exposure, coded as the source coded it, else by the standard concept, else by the source's own value.
select
    t.person_id::bigint as subject_id,
    coalesce(t.drug_exposure_start_datetime::timestamp, t.drug_exposure_start_date::timestamp) as time,
    coalesce(
        source.vocabulary_id || '//' || source.concept_code,
        standard.vocabulary_id || '//' || standard.concept_code,
        'SOURCE//' || coalesce(t.drug_source_value, '')
    ) as code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'drug_exposure/' || t.drug_exposure_id as source_key,
    t.removed as removed
from {drug_exposure} t
left join {concept} source on source.concept_id = t.drug_source_concept_id and source.concept_id <> 0
left join {concept} standard on standard.concept_id = t.drug_concept_id and standard.concept_id <> 0
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
