-- Patients erased on request: that it was done, when, by whom, and what changed. Never who. Append-only.
create table governance.erasures (
    erasure_id uuid        primary key,
    erased_by  text        not null,
    reason     text        not null,
    log_rows   bigint      not null,
    partitions integer     not null,
    published  bigint      not null,  -- published risk rows removed, over all releases
    files      integer     not null,  -- files of token stores, labels, predictions and scores rewritten or removed
    erased_at  timestamptz not null default now()
);

-- A snapshot's digest before and after: a decision or a release that names the old one is about this snapshot still.
create table governance.erased_snapshots (
    erasure_id uuid not null references governance.erasures,
    as_of      date not null,
    old_digest text not null,
    new_digest text not null,
    primary key (erasure_id, as_of)
);

-- Rows taken out of a release; its row_count and rows_digest tell what it was when it was published.
create table governance.erased_releases (
    erasure_id uuid   not null references governance.erasures,
    release_id uuid   not null,
    rows       bigint not null,
    primary key (erasure_id, release_id)
);

-- Models whose snapshot held the patient.
create table governance.erased_models (
    erasure_id    uuid    not null references governance.erasures,
    model_name    text    not null,
    model_version integer not null,
    split         text    not null check (split in ('train', 'tuning', 'held_out')),
    primary key (erasure_id, model_name, model_version)
);

grant select, insert on governance.erasures, governance.erased_snapshots, governance.erased_releases,
    governance.erased_models to vigil_govern;
grant select on governance.erasures, governance.erased_snapshots, governance.erased_releases,
    governance.erased_models to vigil_publish, vigil_read;
