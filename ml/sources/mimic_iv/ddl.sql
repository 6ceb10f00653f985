-- MIMIC-IV's hosp schema (https://mimic.mit.edu/docs/iv/modules/hosp/), the tables and columns Vigil reads or shows.
-- Table names are unqualified: set search_path to the schema first.

create table patients (
    subject_id        integer not null,
    gender            text    not null,
    anchor_age        integer not null,
    anchor_year       integer not null,
    anchor_year_group text    not null,
    dod               date
);

create table admissions (
    subject_id           integer   not null,
    hadm_id              integer   not null,
    admittime            timestamp not null,
    dischtime            timestamp not null,
    deathtime            timestamp,
    admission_type       text,
    admission_location   text,
    discharge_location   text,
    insurance            text,
    language             text,
    marital_status       text,
    race                 text,
    edregtime            timestamp,
    edouttime            timestamp,
    hospital_expire_flag integer
);

create table diagnoses_icd (
    subject_id  integer not null,
    hadm_id     integer not null,
    seq_num     integer not null,
    icd_code    text    not null,
    icd_version integer not null
);

create table procedures_icd (
    subject_id  integer not null,
    hadm_id     integer not null,
    seq_num     integer not null,
    chartdate   date,
    icd_code    text    not null,
    icd_version integer not null
);

create table prescriptions (
    subject_id      integer not null,
    hadm_id         integer,
    pharmacy_id     integer,
    starttime       timestamp,
    stoptime        timestamp,
    drug_type       text,
    drug            text    not null,
    gsn             text,
    ndc             text,
    prod_strength   text,
    dose_val_rx     text,
    dose_unit_rx    text,
    route           text
);

create table labevents (
    labevent_id     bigint    not null,
    subject_id      integer   not null,
    hadm_id         integer,
    specimen_id     bigint,
    itemid          integer   not null,
    charttime       timestamp not null,
    storetime       timestamp,
    value           text,
    valuenum        double precision,
    valueuom        text,
    ref_range_lower double precision,
    ref_range_upper double precision,
    flag            text
);

create table d_labitems (
    itemid     integer not null,
    label      text,
    fluid      text,
    category   text,
    loinc_code text
);
