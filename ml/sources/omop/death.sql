-- A person's death. No key but the person, so at most one death each.
select
    t.person_id::bigint as subject_id,
    coalesce(t.death_datetime::timestamp, t.death_date::timestamp) as time,
    'MEDS_DEATH' as code,
    null::real as numeric_value,
    null::text as text_value,
    null::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'death/' || t.person_id as source_key,
    t.removed as removed
from {death} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
