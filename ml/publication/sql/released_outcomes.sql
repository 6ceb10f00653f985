-- The outcomes of a release.
select distinct outcome, horizon_days
from published.risk_scores
where release_id = %(release_id)s::uuid
order by outcome
