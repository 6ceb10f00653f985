-- Keys and indexes of ddl.sql, made after the rows are in (see there).

alter table location add primary key (location_id);
alter table care_site add primary key (care_site_id);
alter table concept add primary key (concept_id);
alter table vocabulary add primary key (vocabulary_id);
alter table concept_relationship add primary key (concept_id_1, concept_id_2, relationship_id);

alter table person add primary key (person_id, recorded_at);
alter table observation_period add primary key (observation_period_id, recorded_at);
alter table visit_occurrence add primary key (visit_occurrence_id, recorded_at);
alter table condition_occurrence add primary key (condition_occurrence_id, recorded_at);
alter table drug_exposure add primary key (drug_exposure_id, recorded_at);
alter table procedure_occurrence add primary key (procedure_occurrence_id, recorded_at);
alter table measurement add primary key (measurement_id, recorded_at);
alter table observation add primary key (observation_id, recorded_at);
alter table death add primary key (person_id, recorded_at);

create index person_recorded on person (recorded_at);
create index observation_period_recorded on observation_period (recorded_at);
create index visit_occurrence_recorded on visit_occurrence (recorded_at);
create index condition_occurrence_recorded on condition_occurrence (recorded_at);
create index drug_exposure_recorded on drug_exposure (recorded_at);
create index procedure_occurrence_recorded on procedure_occurrence (recorded_at);
create index measurement_recorded on measurement (recorded_at);
create index observation_recorded on observation (recorded_at);
create index death_recorded on death (recorded_at);
