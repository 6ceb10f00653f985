-- Billed diagnoses, timed at discharge, when they were coded; MIMIC stores codes without their dot.
select
    t.subject_id::bigint as subject_id,
    a.dischtime::timestamp as time,
    case
        when t.icd_version = 10 then 'ICD10CM//'
        when t.icd_version = 9 then 'ICD9CM//'
        else 'SOURCE//'
    end || case
        when length(code.plain) > code.stem then left(code.plain, code.stem) || '.' || substr(code.plain, code.stem + 1)
        else code.plain
    end as code,
    null::real as numeric_value,
    null::text as text_value,
    t.hadm_id::bigint as visit_id,
    t.recorded_at::timestamp as recorded_at,
    'diagnoses_icd/' || t.hadm_id || '-' || t.seq_num as source_key,
    t.removed as removed
from {diagnoses_icd} t
left join {admissions} a using (subject_id, hadm_id)
cross join lateral (
    select
        replace(trim(t.icd_code), '.', '') as plain,
        case when t.icd_version = 9 and trim(t.icd_code) like 'E%' then 4 else 3 end as stem
) code
where t.recorded_at >= {recorded_from} and t.recorded_at < {recorded_until}
