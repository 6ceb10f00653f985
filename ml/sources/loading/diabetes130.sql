-- From the staged files to OMOP.
--
-- Dates: encounter ids were issued in the order of time, so the rank of an id among all n encounters, times the 3,653
-- days of 1999-01-01 … 2008-12-31 over n, is its day. The gap to the patient's next encounter then agrees with what the
-- data themselves say of readmission within 30 days; a single date may be off by weeks.
-- Concepts: the export has none, so codes get ids above two billion, which OMOP leaves to the site.

create unlogged table staging_dated as
select
    v.visit_id,
    v.patient_id,
    v.age,
    v.discharge_disposition_id,
    date '1999-01-01' + (((row_number() over (order by v.visit_id) - 1) * 3653) / count(*) over ())::integer as start_date,
    v.time_in_hospital
from staging_visits v;

insert into concept (concept_id, concept_name, domain_id, vocabulary_id, concept_class_id, concept_code)
select
    2000000000 + row_number() over (order by c.vocabulary, c.code),
    c.code,
    c.domain,
    c.vocabulary,
    'site',
    c.code
from (
    -- ICD-9-CM: three characters before the dot, E codes four.
    select distinct
        'Condition' as domain,
        'ICD9CM' as vocabulary,
        case
            when length(d.plain) > d.stem then left(d.plain, d.stem) || '.' || substr(d.plain, d.stem + 1)
            else d.plain
        end as code
    from (
        select replace(code, '.', '') as plain, case when code like 'E%' then 4 else 3 end as stem from staging_diagnoses
    ) d
    union
    select distinct 'Drug', case when a.atc is null then 'DRUG' else 'ATC' end, coalesce(a.atc, m.drug)
    from staging_medications m
    left join staging_drugs a on a.drug = lower(m.drug)
) c;

-- Known at the first discharge, like the encounter itself.
insert into person (
    person_id, gender_concept_id, year_of_birth, race_concept_id, gender_source_value, race_source_value, recorded_at
)
select
    p.patient_id,
    case p.sex when 'Male' then 8507 when 'Female' then 8532 else 0 end,
    extract(year from f.start_date)::integer
        - (split_part(trim(f.age, '[)'), '-', 1)::integer + split_part(trim(f.age, '[)'), '-', 2)::integer) / 2,
    0,
    case when p.sex in ('Male', 'Female') then p.sex end,
    nullif(p.race, '?'),
    f.start_date + f.time_in_hospital + interval '1 day' - interval '1 microsecond'
from staging_patients p
join (
    select distinct on (patient_id) patient_id, age, start_date, time_in_hospital from staging_dated order by patient_id, visit_id
) f using (patient_id);

insert into visit_occurrence (
    visit_occurrence_id, person_id, visit_concept_id, visit_start_date, visit_end_date, discharged_to_source_value,
    recorded_at
)
select
    visit_id,
    patient_id,
    9201,
    start_date,
    start_date + time_in_hospital,
    discharge_disposition_id::text,
    start_date + time_in_hospital + interval '1 day' - interval '1 microsecond'
from staging_dated;

insert into condition_occurrence (
    condition_occurrence_id, person_id, condition_concept_id, condition_start_date, visit_occurrence_id,
    condition_source_value, condition_source_concept_id, recorded_at
)
select
    row_number() over (order by d.visit_id, d.seq),
    v.patient_id,
    0,
    v.start_date,
    d.visit_id,
    d.code,
    c.concept_id,
    v.start_date + v.time_in_hospital + interval '1 day' - interval '1 microsecond'
from staging_diagnoses d
join staging_dated v using (visit_id)
left join concept c on c.vocabulary_id = 'ICD9CM' and replace(c.concept_code, '.', '') = replace(d.code, '.', '');

insert into drug_exposure (
    drug_exposure_id, person_id, drug_concept_id, drug_exposure_start_date, drug_exposure_end_date, visit_occurrence_id,
    drug_source_value, drug_source_concept_id, recorded_at
)
select
    row_number() over (order by m.visit_id, m.drug),
    v.patient_id,
    0,
    v.start_date,
    v.start_date + v.time_in_hospital,
    m.visit_id,
    m.drug,
    c.concept_id,
    v.start_date + v.time_in_hospital + interval '1 day' - interval '1 microsecond'
from staging_medications m
join staging_dated v using (visit_id)
left join staging_drugs a on a.drug = lower(m.drug)
left join concept c on c.domain_id = 'Drug' and c.concept_code = coalesce(a.atc, m.drug);

-- Expired: 11 in hospital, 19 at home, 20 in a facility, 21 place unknown (the last three under hospice care).
insert into death (person_id, death_date, recorded_at)
select
    patient_id,
    max(start_date + time_in_hospital),
    max(start_date + time_in_hospital) + interval '1 day' - interval '1 microsecond'
from staging_dated
where discharge_disposition_id in (11, 19, 20, 21)
group by patient_id;

insert into cdm_source (cdm_source_name, cdm_source_abbreviation, cdm_holder, source_description, cdm_version)
values (
    'Diabetes 130-US hospitals for years 1999-2008',
    'diabetes130',
    'UCI Machine Learning Repository, data set 296, CC BY 4.0',
    'Dates are made, not real: each encounter is dated by the rank of its id, spread evenly over 1999-2008. '
    'Year of birth is the middle of the age band at the first encounter. Rows are taken as known at discharge.',
    'v5.4'
);

drop table staging_dated;
