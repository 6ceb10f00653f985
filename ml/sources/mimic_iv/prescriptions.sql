-- Prescriptions by National Drug Code, else by the drug's name. MIMIC gives them no id of their own: patient, admission,
-- start and drug identify one, so repeated lines of one order are one event.
select distinct
    t.subject_id::bigint as subject_id,
    t.starttime::timestamp as time,
    coalesce('NDC//' || nullif(nullif(trim(t.ndc), ''), '0'), 'SOURCE//' || coalesce(t.drug, '')) as code,
    null::real as numeric_value,
    null::text as text_value,
    t.hadm_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'prescriptions/' || md5(concat_ws('|', t.subject_id, t.hadm_id, t.starttime, t.drug, t.ndc)) as source_key,
    t.removed as removed
from {prescriptions} t
where t.starttime is not null and t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
