-- OMOP CDM 5.4, the tables Vigil reads and loads (https://ohdsi.github.io/CommonDataModel/cdm54.html).
-- Table names are unqualified: set search_path to the schema first. Keys and indexes are in keys.sql, made after
-- the rows are in.
--
-- Every table with a patient in it has two columns more than the CDM, so that it keeps history:
--   recorded_at  when this version of the row became known
--   removed      true: this version takes the row back
-- A correction is a new version, same id and a later recorded_at; nothing is ever overwritten.
-- NOT NULL is asked only of what Vigil cannot do without, because exports seldom fill all that the CDM requires.

create table location (
    location_id           integer not null,
    address_1             text,
    address_2             text,
    city                  text,
    state                 text,
    zip                   text,
    county                text,
    location_source_value text,
    country_concept_id    integer,
    country_source_value  text,
    latitude              double precision,
    longitude             double precision
);

create table care_site (
    care_site_id                  integer not null,
    care_site_name                text,
    place_of_service_concept_id   integer,
    location_id                   integer,
    care_site_source_value        text,
    place_of_service_source_value text
);

create table person (
    person_id                   bigint    not null,
    gender_concept_id           integer   not null,
    year_of_birth               integer   not null,
    month_of_birth              integer,
    day_of_birth                integer,
    birth_datetime              timestamp,
    race_concept_id             integer,
    ethnicity_concept_id        integer,
    location_id                 integer,
    provider_id                 bigint,
    care_site_id                integer,
    person_source_value         text,
    gender_source_value         text,
    gender_source_concept_id    integer,
    race_source_value           text,
    race_source_concept_id      integer,
    ethnicity_source_value      text,
    ethnicity_source_concept_id integer,
    recorded_at                 timestamp not null,
    removed                     boolean   not null default false
);

create table observation_period (
    observation_period_id         bigint    not null,
    person_id                     bigint    not null,
    observation_period_start_date date      not null,
    observation_period_end_date   date      not null,
    period_type_concept_id        integer,
    recorded_at                   timestamp not null,
    removed                       boolean   not null default false
);

create table visit_occurrence (
    visit_occurrence_id           bigint    not null,
    person_id                     bigint    not null,
    visit_concept_id              integer   not null,
    visit_start_date              date      not null,
    visit_start_datetime          timestamp,
    visit_end_date                date,
    visit_end_datetime            timestamp,
    visit_type_concept_id         integer,
    provider_id                   bigint,
    care_site_id                  integer,
    visit_source_value            text,
    visit_source_concept_id       integer,
    admitted_from_concept_id      integer,
    admitted_from_source_value    text,
    discharged_to_concept_id      integer,
    discharged_to_source_value    text,
    preceding_visit_occurrence_id bigint,
    recorded_at                   timestamp not null,
    removed                       boolean   not null default false
);

create table condition_occurrence (
    condition_occurrence_id       bigint    not null,
    person_id                     bigint    not null,
    condition_concept_id          integer   not null,
    condition_start_date          date      not null,
    condition_start_datetime      timestamp,
    condition_end_date            date,
    condition_end_datetime        timestamp,
    condition_type_concept_id     integer,
    condition_status_concept_id   integer,
    stop_reason                   text,
    provider_id                   bigint,
    visit_occurrence_id           bigint,
    visit_detail_id               bigint,
    condition_source_value        text,
    condition_source_concept_id   integer,
    condition_status_source_value text,
    recorded_at                   timestamp not null,
    removed                       boolean   not null default false
);

create table drug_exposure (
    drug_exposure_id             bigint    not null,
    person_id                    bigint    not null,
    drug_concept_id              integer   not null,
    drug_exposure_start_date     date      not null,
    drug_exposure_start_datetime timestamp,
    drug_exposure_end_date       date,
    drug_exposure_end_datetime   timestamp,
    verbatim_end_date            date,
    drug_type_concept_id         integer,
    stop_reason                  text,
    refills                      integer,
    quantity                     double precision,
    days_supply                  integer,
    sig                          text,
    route_concept_id             integer,
    lot_number                   text,
    provider_id                  bigint,
    visit_occurrence_id          bigint,
    visit_detail_id              bigint,
    drug_source_value            text,
    drug_source_concept_id       integer,
    route_source_value           text,
    dose_unit_source_value       text,
    recorded_at                  timestamp not null,
    removed                      boolean   not null default false
);

create table procedure_occurrence (
    procedure_occurrence_id     bigint    not null,
    person_id                   bigint    not null,
    procedure_concept_id        integer   not null,
    procedure_date              date      not null,
    procedure_datetime          timestamp,
    procedure_end_date          date,
    procedure_end_datetime      timestamp,
    procedure_type_concept_id   integer,
    modifier_concept_id         integer,
    quantity                    integer,
    provider_id                 bigint,
    visit_occurrence_id         bigint,
    visit_detail_id             bigint,
    procedure_source_value      text,
    procedure_source_concept_id integer,
    modifier_source_value       text,
    recorded_at                 timestamp not null,
    removed                     boolean   not null default false
);

create table measurement (
    measurement_id                bigint    not null,
    person_id                     bigint    not null,
    measurement_concept_id        integer   not null,
    measurement_date              date      not null,
    measurement_datetime          timestamp,
    measurement_time              text,
    measurement_type_concept_id   integer,
    operator_concept_id           integer,
    value_as_number               double precision,
    value_as_concept_id           integer,
    unit_concept_id               integer,
    range_low                     double precision,
    range_high                    double precision,
    provider_id                   bigint,
    visit_occurrence_id           bigint,
    visit_detail_id               bigint,
    measurement_source_value      text,
    measurement_source_concept_id integer,
    unit_source_value             text,
    unit_source_concept_id        integer,
    value_source_value            text,
    measurement_event_id          bigint,
    meas_event_field_concept_id   integer,
    recorded_at                   timestamp not null,
    removed                       boolean   not null default false
);

create table observation (
    observation_id                bigint    not null,
    person_id                     bigint    not null,
    observation_concept_id        integer   not null,
    observation_date              date      not null,
    observation_datetime          timestamp,
    observation_type_concept_id   integer,
    value_as_number               double precision,
    value_as_string               text,
    value_as_concept_id           integer,
    qualifier_concept_id          integer,
    unit_concept_id               integer,
    provider_id                   bigint,
    visit_occurrence_id           bigint,
    visit_detail_id               bigint,
    observation_source_value      text,
    observation_source_concept_id integer,
    unit_source_value             text,
    qualifier_source_value        text,
    value_source_value            text,
    observation_event_id          bigint,
    obs_event_field_concept_id    integer,
    recorded_at                   timestamp not null,
    removed                       boolean   not null default false
);

create table death (
    person_id               bigint    not null,
    death_date              date      not null,
    death_datetime          timestamp,
    death_type_concept_id   integer,
    cause_concept_id        integer,
    cause_source_value      text,
    cause_source_concept_id integer,
    recorded_at             timestamp not null,
    removed                 boolean   not null default false
);

create table concept (
    concept_id       integer not null,
    concept_name     text    not null,
    domain_id        text,
    vocabulary_id    text    not null,
    concept_class_id text,
    standard_concept text,
    concept_code     text    not null,
    valid_start_date date,
    valid_end_date   date,
    invalid_reason   text
);

create table concept_relationship (
    concept_id_1     integer not null,
    concept_id_2     integer not null,
    relationship_id  text    not null,
    valid_start_date date,
    valid_end_date   date,
    invalid_reason   text
);

create table vocabulary (
    vocabulary_id         text not null,
    vocabulary_name       text,
    vocabulary_reference  text,
    vocabulary_version    text,
    vocabulary_concept_id integer
);

create table cdm_source (
    cdm_source_name                text not null,
    cdm_source_abbreviation        text,
    cdm_holder                     text,
    source_description             text,
    source_documentation_reference text,
    cdm_etl_reference              text,
    source_release_date            date,
    cdm_release_date               date,
    cdm_version                    text,
    cdm_version_concept_id         integer,
    vocabulary_version             text
);
