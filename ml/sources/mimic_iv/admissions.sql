-- The admission at its start, the discharge with the days the stay took, and the person's race as this admission has it
-- (the latest admission wins). A stay within one day has no discharge of its own, nor has one that is only planned.
select
    t.subject_id::bigint as subject_id,
    e.time,
    e.code,
    e.days as numeric_value,
    null::text as text_value,
    e.visit_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    e.source_key,
    t.removed or e.gone as removed
from {admissions} t
cross join lateral (
    select case
        when t.admission_type like '%OBSERVATION%' then 'observation'
        when t.admission_type like '%EMER%' then 'emergency_inpatient'
        else 'inpatient'
    end as kind
) k
cross join lateral (values
    (t.admittime::timestamp, 'VISIT//' || k.kind, null::real, t.hadm_id, 'admissions/' || t.hadm_id, false),
    (
        t.dischtime::timestamp,
        'VISIT_END//' || k.kind,
        (extract(epoch from t.dischtime::timestamp - t.admittime::timestamp) / 86400)::real,
        t.hadm_id,
        'admissions/' || t.hadm_id || '/end',
        coalesce(t.dischtime::date <= t.admittime::date or t.dischtime::timestamp > t.recorded_at, true)
    ),
    (null, 'RACE//' || nullif(t.race, ''), null, null, 'patients/' || t.subject_id || '/race', false)
) as e (time, code, days, visit_id, source_key, gone)
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until} and e.code is not null
