-- A hospital without meaning but of the right shape: half diagnoses of 2,000 codes, half measurements of 300.
insert into concept (concept_id, concept_name, vocabulary_id, concept_code)
select 1000 + n, 'diagnosis', 'ICD10CM', chr(65 + n %% 26) || lpad((n / 26 %% 100)::text, 2, '0') || '.' || n %% 10
from generate_series(0, 1999) n
union all
select 5000 + n, 'measurement', 'LOINC', (10000 + n)::text || '-' || n %% 10 from generate_series(0, 299) n
union all
values (8507, 'male', 'Gender', 'M'), (8532, 'female', 'Gender', 'F');

insert into person (person_id, gender_concept_id, year_of_birth, recorded_at)
select n, 8507 + 25 * (n %% 2)::integer, 1930 + (n %% 70)::integer, timestamp '2020-07-01 06:00'
from generate_series(1, %(patients)s::bigint) n;

insert into condition_occurrence (
    condition_occurrence_id, person_id, condition_concept_id, condition_start_date, condition_source_concept_id,
    visit_occurrence_id, recorded_at
)
select
    n, 1 + n * 7919 %% %(patients)s, 1000 + (power(random(), 3) * 2000)::integer %% 2000, day::date,
    0, n / 4, day + interval '1 hour' * (n %% 24)
from generate_series(1, %(rows)s::bigint) n
cross join lateral (
    select timestamp '2020-07-01' + interval '1 day' * (n * 1460 / %(rows)s)::integer as day
) d;

insert into measurement (
    measurement_id, person_id, measurement_concept_id, measurement_date, value_as_number, visit_occurrence_id,
    recorded_at
)
select
    n, 1 + n * 7919 %% %(patients)s, 5000 + (power(random(), 2) * 300)::integer %% 300, day::date,
    (random() * 100)::real, n / 4, day + interval '1 hour' * (n %% 24)
from generate_series(1, %(rows)s::bigint) n
cross join lateral (
    select timestamp '2020-07-01' + interval '1 day' * (n * 1460 / %(rows)s)::integer as day
) d;
