-- What happened after a published score, beside what was said: aggregates by month, model version and outcome.
create table published.outcome_surveillance (
    model_name          text             not null,
    model_version       integer          not null,
    month               date             not null check (extract(day from month) = 1),
    outcome             text             not null,
    horizon_days        integer          not null,
    as_of               date             not null,  -- the day judged: the first published of the month
    release_id          uuid             not null,
    snapshot_as_of      date             not null,  -- what happened is as this snapshot knows it
    n                   integer,                    -- null where it, or what follows from it, is a small count
    events              integer,
    auroc               double precision,
    auroc_low           double precision,
    auroc_high          double precision,
    approved_auroc      double precision,           -- when the version was let through
    brier               double precision,
    brier_low           double precision,
    brier_high          double precision,
    slope               double precision,
    slope_low           double precision,
    slope_high          double precision,
    intercept           double precision,
    intercept_low       double precision,
    intercept_high      double precision,
    observed_expected      double precision,
    observed_expected_low  double precision,
    observed_expected_high double precision,
    alerts              text[]           not null default '{}',
    reason              text,                       -- why there are no metrics
    judged_at           timestamptz      not null default now(),
    primary key (model_name, model_version, month, outcome)
);

grant select, insert, update on published.outcome_surveillance to vigil_publish;
grant select on published.outcome_surveillance to vigil_read;
