-- One event per observation, coded as the source coded it (or by the standard concept, VIGIL_OMOP_CODES).
-- A number too large for float32 becomes infinite instead of an error, so that quality can set the row aside.
select
    t.person_id::bigint as subject_id,
    coalesce(t.observation_datetime::timestamp, t.observation_date::timestamp) as time,
    coalesce(
        case when {standard_codes} then coalesce(standard.code, source.standard_code) end,
        source.code,
        standard.code,
        'SOURCE//' || coalesce(t.observation_source_value, '')
    ) as code,
    case
        when abs(t.value_as_number) > 3.4e38 then 'Infinity'::real
        when abs(t.value_as_number) < 1.2e-38 then 0::real
        else t.value_as_number::real
    end as numeric_value,
    nullif(t.value_as_string, '') as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'observation/' || t.observation_id as source_key,
    t.removed as removed
from {observation} t
left join {code} source on source.concept_id = t.observation_source_concept_id
left join {code} standard on standard.concept_id = t.observation_concept_id
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
