-- The admission, at its start, and the person's race as this admission has it (the latest admission wins).
select
    t.subject_id::bigint as subject_id,
    e.time,
    e.code,
    null::real as numeric_value,
    null::text as text_value,
    e.visit_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    e.source_key,
    t.removed as removed
from {admissions} t
cross join lateral (values
    (
        t.admittime::timestamp,
        'VISIT//' || case
            when t.admission_type like '%OBSERVATION%' then 'observation'
            when t.admission_type like '%EMER%' then 'emergency_inpatient'
            else 'inpatient'
        end,
        t.hadm_id,
        'admissions/' || t.hadm_id
    ),
    (null, 'RACE//' || nullif(t.race, ''), null, 'patients/' || t.subject_id || '/race')
) as e (time, code, visit_id, source_key)
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until} and e.code is not null
