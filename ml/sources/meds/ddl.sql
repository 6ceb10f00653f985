-- A MEDS dataset with Vigil's second clock. Table names are unqualified: set search_path to the schema first.

create table meds_events (
    subject_id    bigint    not null,
    time          timestamp,          -- null: static
    code          text      not null,
    numeric_value real,
    text_value    text,
    visit_id      bigint,
    recorded_at   timestamp not null,
    source_key    text      not null,
    removed       boolean   not null default false
);

create table meds_codes (
    code         text not null,
    description  text,
    parent_codes text[]
);
