-- What was loaded into this schema, and the rows that could not be.
create table if not exists {schema}.loads (
    loader    text        not null,
    layout    text        not null, -- the source that reads it: omop, mimic_iv
    digest    text        not null, -- SHA-256 over the files' names and SHA-256
    history   text        not null check (history in ('kept', 'assumed')),
    summary   jsonb       not null,
    loaded_at timestamptz not null default clock_timestamp()
);
create table if not exists {schema}.rejected_rows (
    loader text   not null,
    file   text   not null,
    line   bigint not null,
    reason text   not null,
    raw    text
);
