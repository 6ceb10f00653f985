-- Laboratory results: LOINC where d_labitems knows it, else MIMIC's own item.
-- A number too large for float32 becomes infinite instead of an error, so that quality can set the row aside.
select
    t.subject_id::bigint as subject_id,
    t.charttime::timestamp as time,
    coalesce('LOINC//' || nullif(trim(item.loinc_code), ''), 'SOURCE//LAB/' || t.itemid) as code,
    case
        when abs(t.valuenum) > 3.4e38 then 'Infinity'::real
        when abs(t.valuenum) < 1.2e-38 then 0::real
        else t.valuenum::real
    end as numeric_value,
    case when t.valuenum is null then nullif(t.value, '') end as text_value,
    t.hadm_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'labevents/' || t.labevent_id as source_key,
    t.removed as removed
from {labevents} t
left join {d_labitems} item using (itemid)
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
