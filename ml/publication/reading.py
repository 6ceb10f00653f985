"""What analysts and clinicians' tools read, as role ``read``: the current views, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ml.common.db import connect, fetch
from ml.common.errors import NotFoundError
from ml.settings import Role

_RISKS = """
select pseudonym, risk, horizon_days from published.current_risk_scores
where outcome = %(outcome)s and in_scope order by risk desc, pseudonym limit %(top)s
"""

_RISK_HEADER = """
select r.as_of, r.model_name, r.model_version, r.decision, r.snapshot_digest, max(r.scored_at),
       count(*) filter (where r.outcome = %(outcome)s and r.in_scope),
       count(*) filter (where r.outcome = %(outcome)s),
       array_agg(distinct r.outcome order by r.outcome)
from published.current_risk_scores r group by 1, 2, 3, 4, 5
"""

_DECISION = """
select d.decided_by, d.decided_at
from governance.promotions p join governance.decisions d using (decision_id)
where p.model_name = %(model)s and p.model_version = %(version)s and d.by_policy = %(by_policy)s
order by p.promoted_at desc limit 1
"""

# A code without its vocabulary is looked for in every vocabulary.
_PAIRS = """
with named as (
    select *, case when %(bare)s then split_part(source_code, '//', 2) else source_code end as source_name,
              case when %(bare)s then split_part(target_code, '//', 2) else target_code end as target_name
    from published.current_disease_interconnections
    where %(method)s::text is null or method = %(method)s
)
select method, source_code, target_code, directed, weight, ci_low, ci_high, p_adjusted, significant,
       n_source, n_target, n_both, weight_meaning, as_of
from named
where source_name = %(code)s or target_name = %(code)s
      or starts_with(source_name, %(code)s || '.') or starts_with(target_name, %(code)s || '.')
order by method, weight desc, source_code, target_code
"""


@dataclass(frozen=True)
class RiskHeader:
    """What a list of risks rests on.

    Attributes:
        in_scope, patients: with a risk for this outcome; of all.
    """

    outcome: str
    as_of: date
    model_name: str
    model_version: int
    decision: str
    decided_by: str | None
    decided_at: datetime | None
    snapshot_digest: str
    scored_at: datetime
    in_scope: int
    patients: int

    @property
    def decision_sentence(self) -> str:
        """Whose decision let the model through."""
        when = f" on {self.decided_at:%Y-%m-%d %H:%M} UTC" if self.decided_at else ""
        if self.decision == "policy":
            return f"let through by policy{when}; no person has reviewed it"
        return f"let through by {self.decided_by or 'a person'}{when}"


@dataclass(frozen=True)
class Risk:
    pseudonym: str
    risk: float
    horizon_days: int


@dataclass(frozen=True)
class Pair:
    """One row of the interconnections, as published."""

    method: str
    source_code: str
    target_code: str
    directed: bool
    weight: float
    ci_low: float | None
    ci_high: float | None
    p_adjusted: float | None
    significant: bool | None
    n_source: int
    n_target: int
    n_both: int
    weight_meaning: str
    as_of: date


def top_risks(outcome: str, top: int) -> tuple[RiskHeader, list[Risk]]:
    """The highest current risks of an outcome, and what they rest on.

    Raises:
        NotFoundError: nothing is published, or not this outcome.
    """
    with connect(Role.READ, readonly=True) as connection:
        headers = fetch(connection, _RISK_HEADER, {"outcome": outcome})
        if not headers:
            raise NotFoundError("no risk scores are published", "run a night, and let a model through")
        *head, in_scope, patients, outcomes = headers[0]
        if outcome not in outcomes:
            raise NotFoundError(f"no risk scores for the outcome '{outcome}'", f"use one of: {', '.join(outcomes)}")
        as_of, model_name, version, decision, digest, scored_at = head
        values = {"model": model_name, "version": version, "by_policy": decision == "policy"}
        decided_by, decided_at = (fetch(connection, _DECISION, values) or [(None, None)])[0]
        rows = fetch(connection, _RISKS, {"outcome": outcome, "top": top})
    header = RiskHeader(
        outcome=outcome,
        as_of=as_of,
        model_name=model_name,
        model_version=version,
        decision=decision,
        decided_by=decided_by,
        decided_at=decided_at,
        snapshot_digest=digest,
        scored_at=scored_at,
        in_scope=in_scope,
        patients=patients,
    )
    return header, [Risk(*row) for row in rows]


def pairs_of(code: str, method: str | None, top: int) -> list[Pair]:
    """The strongest interconnections of a code, at most ``top`` by method; a code includes those below it.

    Args:
        code: ``E11``, ``E11.9`` or with its vocabulary, ``ICD10CM//E11``.

    Raises:
        NotFoundError: none is published for this code.
    """
    values = {"bare": "//" not in code, "code": code, "method": method}
    with connect(Role.READ, readonly=True) as connection:
        rows = [Pair(*row) for row in fetch(connection, _PAIRS, values)]
    if not rows:
        by = f" by {method}" if method else ""
        raise NotFoundError(
            f"no interconnections of {code}{by} are published",
            "the code is unknown or too rare to be shown, or no night has run ('vigil show releases' tells)",
        )
    kept: dict[str, int] = {}
    found = []
    for pair in rows:
        kept[pair.method] = kept.get(pair.method, 0) + 1
        if kept[pair.method] <= top:
            found.append(pair)
    return found
