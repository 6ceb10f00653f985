-- Birth and sex. Birth is 1 January of anchor_year - anchor_age: MIMIC gives no more, and ages above 89 are 91.
select
    p.subject_id::bigint as subject_id,
    e.time,
    coalesce(e.code, upper(e.what) || '//') as code,
    null::real as numeric_value,
    null::text as text_value,
    null::bigint as visit_id,
    p.recorded_at::timestamp as recorded_at,
    'patients/' || p.subject_id || '/' || e.what as source_key,
    p.removed or e.code is null as removed
from {patients} p
cross join lateral (values
    (
        'birth',
        timestamp '0001-01-01' + make_interval(years => p.anchor_year - p.anchor_age - 1),
        'MEDS_BIRTH'
    ),
    ('gender', null, 'GENDER//' || nullif(p.gender, ''))
) as e (what, time, code)
where p.recorded_at >= {recorded_from} and p.recorded_at < {recorded_until}
