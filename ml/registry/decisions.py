"""Decisions: rows of governance.decisions, the only thing that lets a model through.

A row binds who decided to what was decided on: the digests of the weights, of the data and of the evaluation. It
expires: an approval nobody used in time does not count. A model promoted while its approval counted stays let through.
"""

from __future__ import annotations

import uuid
from typing import Any

from ml.common.db import Connection, connect, fetch
from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.registry.types import Decision, Digests, RegisteredModel
from ml.settings import Role, get_settings

POLICY = "policy:auto"

_SELECT = """
select d.decision_id::text, d.model_version, d.decision = 'approved', d.decided_by, d.by_policy, d.requested_by,
       d.reason, d.model_digest, d.snapshot_digest, d.metrics_digest, d.decided_at, d.expires_at,
       d.expires_at <= now(),
       exists (select from governance.promotions p
               where p.decision_id = d.decision_id and p.promoted_at <= d.expires_at)
from governance.decisions d
where d.model_name = %(model)s and d.model_version = %(version)s
order by d.decided_at desc, d.decision_id
"""

_INSERT = """
insert into governance.decisions (decision_id, model_name, model_version, decision, decided_by, by_policy, requested_by,
                                  reason, model_digest, snapshot_digest, metrics_digest, expires_at)
values (%(id)s, %(model)s, %(version)s, %(decision)s, %(decided_by)s, %(by_policy)s, %(requested_by)s,
        %(reason)s, %(model_digest)s, %(snapshot_digest)s, %(metrics_digest)s,
        now() + make_interval(days => %(days)s))
"""

# Two people who answer at once: the second waits here, then finds the first one's row.
_LOCK = "select pg_advisory_xact_lock(hashtextextended('vigil decision ' || %s || ' ' || %s, 0))"


def decisions_on(connection: Connection, version: int) -> list[Decision]:
    """Every decision on a version number, newest first, whatever it was bound to."""
    rows = fetch(connection, _SELECT, {"model": get_settings().model_name, "version": version})
    return [_decision(row) for row in rows]


def _decision(row: tuple[Any, ...]) -> Decision:
    who, (model, snapshot, metrics), clock = row[:7], row[7:10], row[10:]
    return Decision(*who, Digests(model, snapshot, metrics), *clock)  # type: ignore[call-arg]


def find_decision(connection: Connection, version: int, digests: Digests) -> Decision | None:
    """The newest decision on exactly this model, data and evaluation, expired or not."""
    return next((d for d in decisions_on(connection, version) if d.digests == digests), None)


def decision_for(version: int) -> Decision | None:
    """The decision that counts on a version as it is registered; None while it waits for one.

    Raises:
        NotFoundError: there is no such version.
        TrackingError: MLflow does not answer.
    """
    from ml.registry.tracking import connected, version_info

    with connected() as client:
        digests = version_info(client, version).digests
    with connect(Role.READ, readonly=True) as connection:
        found = find_decision(connection, version, digests)
    return found if found is not None and found.counts else None


def require_approval(connection: Connection, version: int, digests: Digests) -> Decision:
    """The approval behind exactly this model.

    Raises:
        RefusedError: there is none, it is a rejection, or it has expired unused.
    """
    found = find_decision(connection, version, digests)
    answer = f"answer with 'vigil review approve {version}' or 'vigil review reject {version}'"
    if found is None:
        other = decisions_on(connection, version)
        cause = f"no decision on version {version}"
        if other:
            cause = f"the decision on version {version} was made on another model, snapshot or evaluation"
        raise RefusedError(cause, answer)
    if not found.approved:
        raise RefusedError(f"version {version} was rejected by {found.decided_by}", "train and register another model")
    if not found.counts:
        raise RefusedError(
            f"the approval of version {version} expired on {found.expires_at:%Y-%m-%d %H:%M} UTC", answer
        )
    return found


def record(
    model: RegisteredModel, *, approved: bool, decided_by: str, reason: str, by_policy: bool = False
) -> Decision:
    """Append a decision.

    Raises:
        RefusedError: the requester decides on his own request, or a decision that counts is there already.
        ConfigError: no name or no reason.
    """
    name, why = decided_by.strip(), reason.strip()
    _check_names(model, name, why, by_policy)
    settings = get_settings()
    with connect(Role.GOVERN) as connection:
        fetch(connection, _LOCK, (settings.model_name, str(model.version)))
        earlier = find_decision(connection, model.version, model.digests)
        if earlier is not None and earlier.counts:
            raise RefusedError(
                f"version {model.version} was decided already: {earlier.sentence}", "a decision is not made twice"
            )
        values = {
            "id": str(uuid.uuid4()),
            "model": settings.model_name,
            "version": model.version,
            "decision": "approved" if approved else "rejected",
            "decided_by": name,
            "by_policy": by_policy,
            "requested_by": model.requested_by,
            "reason": why,
            "model_digest": model.digests.model,
            "snapshot_digest": model.digests.snapshot,
            "metrics_digest": model.digests.metrics,
            "days": settings.review_days,
        }
        with connection.cursor() as cursor:
            cursor.execute(_INSERT, values)
        recorded = find_decision(connection, model.version, model.digests)
    if recorded is None:
        raise NotFoundError(f"the decision on version {model.version} was not kept", "try again")
    return recorded


def _check_names(model: RegisteredModel, name: str, reason: str, by_policy: bool) -> None:
    if not reason:
        raise ConfigError("a decision needs a reason", "say why with --reason")
    if not name:
        raise ConfigError("a decision needs a name", "say who decides with --as NAME")
    if name.casefold().startswith("policy") and not by_policy:
        raise RefusedError(f"'{name}' is not a person", "decide under your own name")
    if name.casefold() == model.requested_by.strip().casefold():
        raise RefusedError(
            f"'{name}' asked for the decision on version {model.version} and cannot give it",
            "let another person decide",
        )


def decide_by_policy(version: int) -> Decision:
    """Let a version through because the settings say so; the row says that no person did. Idempotent.

    A person's earlier answer stands.

    Raises:
        ConfigError: review by policy is not set, or this is not the embedded stack.
        RefusedError: the gate refused the version.
    """
    from ml.registry.review import verified

    require_policy_allowed()
    earlier = decision_for(version)
    if earlier is not None:
        return earlier
    model = verified(version)
    return record(model, approved=True, decided_by=POLICY, reason="VIGIL_REVIEW=auto", by_policy=True)


def require_policy_allowed() -> None:
    """Review by policy is for one machine and its demo.

    Raises:
        ConfigError: it is not set, or set where people must decide.
    """
    settings = get_settings()
    if settings.review != "auto":
        raise ConfigError(
            "a person decides here (VIGIL_REVIEW=human)", "answer with 'vigil review approve' or 'reject'"
        )
    if not settings.embedded:
        raise ConfigError("VIGIL_REVIEW=auto is accepted on the embedded stack alone", "set VIGIL_REVIEW=human")
