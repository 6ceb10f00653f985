-- Vigil's own database. Owner of every schema: vigil_migrate; each other role gets what its stage needs.

create schema restricted;
create schema governance;
create schema published;

-- Rows at fault, with their patient: readable by data engineers on the EHR side only, never published.
create table restricted.quarantine (
    as_of          date        not null,
    kind           text        not null,  -- kind of record, e.g. condition_occurrence
    expectation    text        not null,
    severity       text        not null check (severity in ('block', 'warn')),
    source_key     text        not null,
    recorded_at    timestamp   not null,
    subject_id     bigint      not null,
    event_time     timestamp,
    code           text        not null,
    reason         text        not null,
    quarantined_at timestamptz not null default now(),
    primary key (as_of, expectation, source_key, recorded_at)
);

-- Who let which model through, on what evidence. Append-only.
create table governance.decisions (
    decision_id     uuid        primary key,
    model_name      text        not null,
    model_version   integer     not null,
    decision        text        not null check (decision in ('approved', 'rejected')),
    decided_by      text        not null,
    by_policy       boolean     not null,
    requested_by    text        not null,
    reason          text        not null,
    model_digest    text        not null,
    snapshot_digest text        not null,
    metrics_digest  text        not null,
    decided_at      timestamptz not null default now(),
    expires_at      timestamptz not null,
    check (decided_by <> requested_by)
);

-- Which version became champion when, on which decision. Append-only.
create table governance.promotions (
    promotion_id  uuid        primary key,
    model_name    text        not null,
    model_version integer     not null,
    decision_id   uuid        not null references governance.decisions,
    kind          text        not null check (kind in ('promote', 'rollback')),
    promoted_by   text        not null,
    promoted_at   timestamptz not null default now()
);

-- One published set of rows.
create table published.releases (
    release_id      uuid        primary key,
    table_name      text        not null check (table_name in ('risk_scores', 'disease_interconnections')),
    as_of           date        not null,
    run_id          text        not null,
    token           bigint      not null,
    model_version   integer,
    snapshot_digest text        not null,
    row_count       bigint      not null,
    rows_digest     text        not null,
    released_at     timestamptz not null default now()
);

-- The pointer: which release of a table is current. Moved by one compare-and-set update.
create table published.current_releases (
    table_name text        primary key,
    release_id uuid        not null references published.releases,
    as_of      date        not null,
    token      bigint      not null,
    moved_at   timestamptz not null default now()
);

-- Fencing tokens: who holds the right to publish (table, as_of). A newer holder shuts the older one out.
create table published.fences (
    table_name  text        not null,
    as_of       date        not null,
    token       bigint      not null,
    holder      text        not null,
    acquired_at timestamptz not null default now(),
    primary key (table_name, as_of)
);
create sequence published.fence_tokens;

create table published.risk_scores (
    release_id      uuid        not null,
    pseudonym       text        not null,
    as_of           date        not null,
    outcome         text        not null,
    horizon_days    integer     not null,
    risk            real        check (risk between 0 and 1),
    in_scope        boolean     not null,
    scope_reason    text,
    model_name      text        not null,
    model_version   integer     not null,
    decision        text        not null check (decision in ('policy', 'human')),
    snapshot_digest text        not null,
    scored_at       timestamptz not null,
    check (in_scope = (risk is not null)),
    primary key (release_id, pseudonym, outcome)
) partition by list (release_id);

create table published.disease_interconnections (
    release_id      uuid             not null,
    as_of           date             not null,
    method          text             not null,
    source_code     text             not null,
    target_code     text             not null,
    directed        boolean          not null,
    weight          double precision not null,
    weight_meaning  text             not null,
    ci_low          double precision,
    ci_high         double precision,
    p_adjusted      double precision,
    significant     boolean,
    n_source        integer          not null,
    n_target        integer          not null,
    n_both          integer          not null,
    snapshot_digest text             not null,
    computed_at     timestamptz      not null,
    primary key (release_id, method, source_code, target_code)
) partition by list (release_id);

create view published.current_risk_scores as
    select r.* from published.risk_scores r
    join published.current_releases c on c.table_name = 'risk_scores' and c.release_id = r.release_id;

create view published.current_disease_interconnections as
    select r.* from published.disease_interconnections r
    join published.current_releases c on c.table_name = 'disease_interconnections' and c.release_id = r.release_id;

grant usage, create on schema published to vigil_publish;

-- publish owns the two partitioned tables, because attaching a partition asks for ownership.
alter table published.risk_scores owner to vigil_publish;
alter table published.disease_interconnections owner to vigil_publish;

grant usage on schema restricted to vigil_quality;
grant select, insert, delete on restricted.quarantine to vigil_quality;
grant select, insert on published.releases to vigil_publish;
grant select, insert, update on published.current_releases, published.fences to vigil_publish;
grant usage on sequence published.fence_tokens to vigil_publish;
grant usage on schema governance to vigil_govern, vigil_publish, vigil_read;
grant select, insert on governance.decisions, governance.promotions to vigil_govern;
grant select on governance.decisions, governance.promotions to vigil_publish, vigil_read;
grant usage on schema published to vigil_read, vigil_govern;
grant select on published.releases, published.current_releases to vigil_read;
grant select on published.current_risk_scores, published.current_disease_interconnections to vigil_read;
-- The views run with their owner's rights.
grant select on published.risk_scores, published.disease_interconnections to vigil_migrate;
