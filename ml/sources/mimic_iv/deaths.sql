-- Deaths: MIMIC's dod, from the hospital or, up to a year after the last discharge, from state records.
select
    t.subject_id::bigint as subject_id,
    t.dod::timestamp + interval '1 day' - interval '1 microsecond' as time,
    'MEDS_DEATH' as code,
    null::real as numeric_value,
    null::text as text_value,
    null::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'deaths/' || t.subject_id as source_key,
    t.removed as removed
from {deaths} t
where t.dod is not null and t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
