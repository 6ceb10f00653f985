-- One event per measurement, coded as code.sql says.
-- A number too large for float32 becomes infinite instead of an error, so that quality can set the row aside.
select
    t.person_id::bigint as subject_id,
    coalesce(t.measurement_datetime::timestamp, t.measurement_date::timestamp) as time,
    t.code,
    case
        when abs(t.value_as_number) > 3.4e38 then 'Infinity'::real
        when abs(t.value_as_number) < 1.2e-38 then 0::real
        else t.value_as_number::real
    end as numeric_value,
    case when t.value_as_number is null then nullif(t.value_source_value, '') end as text_value,
    t.visit_occurrence_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'measurement/' || t.measurement_id as source_key,
    t.removed as removed
from {measurement} t
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
