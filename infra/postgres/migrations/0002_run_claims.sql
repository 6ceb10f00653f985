-- Who may run a pipeline's day, and every time a release was made a day's answer.

create schema runs;

-- Of the runs that stand for the same day, the one with the highest token holds it; the others are refused.
create table runs.claims (
    pipeline   text        not null,
    as_of      date        not null,
    run_id     text        not null,
    token      bigint      not null unique,
    claimed_at timestamptz not null default now(),
    primary key (pipeline, as_of, run_id)
);
create sequence runs.claim_tokens;

-- Append-only: a run that finds its rows published already makes no new release, but it did publish. The last row of
-- a (table, day) names the release that answers for that day, whether or not it is current.
create table published.publications (
    token        bigint      primary key,  -- of the fence that the publication held
    release_id   uuid        not null references published.releases on delete cascade,
    run_id       text        not null,
    published_at timestamptz not null default now()
);
create index on published.publications (release_id);
insert into published.publications select token, release_id, run_id, released_at from published.releases;

-- Extraction and quality come first in a run and write with the role quality; publication only looks.
grant usage on schema runs to vigil_quality, vigil_publish, vigil_read;
grant select, insert, update (token, claimed_at) on runs.claims to vigil_quality;
grant usage on sequence runs.claim_tokens to vigil_quality;
grant select on runs.claims to vigil_publish, vigil_read;
grant select, insert on published.publications to vigil_publish;
grant select on published.publications to vigil_read;
