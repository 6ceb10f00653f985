-- What a release said of those in scope of some outcomes.
select pseudonym, outcome, risk
from published.risk_scores
where release_id = %(release_id)s::uuid and in_scope and outcome = any(%(outcomes)s)
