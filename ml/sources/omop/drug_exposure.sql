-- One event per drug exposure, coded as code.sql says.
select
    t.person_id::bigint as subject_id,
    coalesce(t.drug_exposure_start_datetime::timestamp, t.drug_exposure_start_date::timestamp) as time,
    t.code,
    null::real as numeric_value,
    null::text as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'drug_exposure/' || t.drug_exposure_id as source_key,
    t.removed as removed
from {drug_exposure} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
