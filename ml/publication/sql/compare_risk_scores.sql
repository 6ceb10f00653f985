-- What became of a day's risk scores between two releases, by outcome; a release that is null has no rows.
select
    outcome as part,
    count(b.release_id) as rows_before,
    count(a.release_id) as rows_after,
    count(*) filter (where b.release_id is null) as added,
    count(*) filter (where a.release_id is null) as removed,
    count(*) filter (
        where a.release_id is not null and b.release_id is not null
          and (a.risk, a.in_scope, a.scope_reason, a.horizon_days)
              is distinct from (b.risk, b.in_scope, b.scope_reason, b.horizon_days)
    ) as changed,
    avg(abs(a.risk::double precision - b.risk::double precision)) as mean_change
from (select * from published.risk_scores where release_id = %(before)s::uuid) b
full join (select * from published.risk_scores where release_id = %(after)s::uuid) a using (pseudonym, outcome)
group by 1 order by 1
