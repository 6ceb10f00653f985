-- What is wrong with staged risk scores: every column but the first two counts rows and must be 0.
select
    count(*) as "rows",
    count(distinct pseudonym) as subjects,
    count(*) filter (where release_id <> %(release_id)s or as_of <> %(as_of)s) as of_another_release_or_day,
    count(*) filter (
        where model_version <> %(model_version)s or model_name <> %(model_name)s or decision <> %(decision)s
           or snapshot_digest <> %(snapshot_digest)s
    ) as of_another_model_or_snapshot,
    -- A subject id written with leading zeros would have 13 or more of them.
    count(*) filter (
        where pseudonym !~ '^[0-9a-f]+$' or length(pseudonym) <> 32 or left(pseudonym, 13) = repeat('0', 13)
    ) as without_a_pseudonym,
    count(*) filter (
        where risk = 'NaN' or risk < 0 or risk > 1 or in_scope is distinct from (risk is not null)
    ) as with_an_impossible_risk,
    count(*) filter (where not in_scope and coalesce(scope_reason, '') = '') as out_of_scope_without_a_reason,
    count(*) filter (where outcome = '' or horizon_days <= 0) as without_an_outcome
from {staging}
