-- The truth about the demo hospital: what is never in the EHR. Readable by the role truth alone.

create table truth.clock (
    identity    text    not null,  -- what was generated; equals the EHR's cdm_source.cdm_etl_reference
    first_today date    not null,
    end_day     date    not null,
    patients    integer not null,
    preset      text    not null,
    seed        bigint  not null
);

create table truth.sampling (
    name  text primary key,
    value text not null
);

-- The true graph. kind effect: counted from the source's onset; prodrome: from its unseen beginning.
create table truth.effects (
    kind            text             not null,
    source          text             not null,
    target          text             not null,
    hazard_ratio    double precision not null,
    latency_days    integer          not null,
    source_of_value text             not null,
    primary key (kind, source, target)
);

-- Base incidence per 1000 person-years. shape exp: rate at 60, log slope a. bell: rate at age a, standard deviation b.
create table truth.diseases (
    category        text             primary key,
    name            text             not null,
    course          text             not null,
    rate            double precision not null,
    shape           text             not null,
    a               double precision not null,
    b               double precision not null,
    f_ratio         double precision not null,  -- female against male; Infinity: women alone
    min_age         integer          not null,
    max_age         integer          not null,
    source_of_value text             not null
);

create table truth.people (
    person_id  bigint  not null,
    site       text    not null,
    sex        text    not null,
    born       date    not null,
    entry      date    not null,
    leaves     date,              -- moves away; empty: not before the end
    frailty    real    not null,
    glycaemia  real    not null,
    heart      real    not null,
    kidney     real    not null
);

-- Every true disease, also the ones before entry and the ones never recorded. Category death included.
create table truth.onsets (
    person_id     bigint not null,
    category      text   not null,
    began         date   not null,
    onset         date,              -- of the diagnosis in truth; empty while latent
    recording     text   not null,   -- at once, late, unseen
    recorded_from date               -- first day on which the hospital codes it
);
