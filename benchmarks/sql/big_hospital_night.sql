-- One more day: new diagnoses and measurements, and corrections of diagnoses of the past.
insert into condition_occurrence (
    condition_occurrence_id, person_id, condition_concept_id, condition_start_date, condition_source_concept_id,
    visit_occurrence_id, recorded_at
)
select
    last.id + n, 1 + (last.id + n) * 7919 %% %(patients)s, 1000 + (power(random(), 3) * 2000)::integer %% 2000,
    %(day)s::date, 0, null, %(day)s::timestamp + interval '1 hour' * (n %% 24)
from (select max(condition_occurrence_id) as id from condition_occurrence) last, generate_series(1, %(rows)s::bigint) n;

insert into condition_occurrence (
    condition_occurrence_id, person_id, condition_concept_id, condition_start_date, condition_source_concept_id,
    visit_occurrence_id, recorded_at
)
select
    c.condition_occurrence_id, c.person_id, 1000 + (random() * 1999)::integer, c.condition_start_date, 0, null,
    %(day)s::timestamp + interval '23 hours'
from condition_occurrence c
where c.condition_occurrence_id between 1 and greatest(%(rows)s / 50, 1) and c.recorded_at < %(day)s::timestamp
on conflict do nothing;

insert into measurement (
    measurement_id, person_id, measurement_concept_id, measurement_date, value_as_number, visit_occurrence_id,
    recorded_at
)
select
    last.id + n, 1 + (last.id + n) * 7919 %% %(patients)s, 5000 + (power(random(), 2) * 300)::integer %% 300,
    %(day)s::date, (random() * 100)::real, null, %(day)s::timestamp + interval '1 hour' * (n %% 24)
from (select max(measurement_id) as id from measurement) last, generate_series(1, %(rows)s::bigint) n;
