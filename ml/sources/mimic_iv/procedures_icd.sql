-- Billed procedures, at their day; ICD-9 procedure codes have their dot after two digits, ICD-10-PCS has none.
select
    t.subject_id::bigint as subject_id,
    coalesce(t.chartdate::timestamp, a.dischtime::timestamp) as time,
    case
        when t.icd_version = 10 then 'ICD10PCS//' || trim(t.icd_code)
        when t.icd_version = 9 and length(trim(t.icd_code)) > 2
            then 'ICD9Proc//' || left(trim(t.icd_code), 2) || '.' || substr(trim(t.icd_code), 3)
        when t.icd_version = 9 then 'ICD9Proc//' || trim(t.icd_code)
        else 'SOURCE//' || trim(t.icd_code)
    end as code,
    null::real as numeric_value,
    null::text as text_value,
    t.hadm_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'procedures_icd/' || t.hadm_id || '-' || t.seq_num as source_key,
    t.removed as removed
from {procedures_icd} t
left join {admissions} a using (subject_id, hadm_id)
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
