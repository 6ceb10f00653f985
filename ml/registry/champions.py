"""The champion: set, found and taken back, each time with the decision behind it.

The history of champions is governance.promotions: a promotion puts a version on top, a rollback takes the top away.
The row is written before the alias moves, so a step killed between the two is seen and finished by the next call.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ml.cohorts.runs import TrainingRun
from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.registry.decisions import find_decision, require_approval
from ml.registry.store import fetch_files
from ml.registry.tracking import CHALLENGER, CHAMPION, all_versions, by_alias, connected, version_info
from ml.registry.types import Champion, Decision, Promotion, RegisteredModel
from ml.settings import Role, get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HISTORY = """
select model_version, kind from governance.promotions where model_name = %s order by promoted_at, promotion_id
"""

_INSERT = """
insert into governance.promotions (promotion_id, model_name, model_version, decision_id, kind, promoted_by, promoted_at)
values (%s, %s, %s, %s, %s, %s, clock_timestamp())
"""

_LOCK = "select pg_advisory_xact_lock(hashtextextended('vigil promotion ' || %s, 0))"


def champion() -> Champion | None:
    """The model in use, its files here and verified; None before the first promotion.

    Raises:
        RefusedError: no valid approval and promotion back what the alias points to, or the files were changed.
        TrackingError: MLflow does not answer.
    """
    with connected() as client:
        model = by_alias(client, CHAMPION)
        if model is None:
            return None
        with connect(Role.READ, readonly=True) as connection:
            decision = require_approval(connection, model.version, model.digests)
            _require_promoted(connection, model.version)
        return _champion(model, decision, fetch_files(client, model))


def _require_promoted(connection: Connection, version: int) -> None:
    """The alias alone makes no champion: anybody who can write to MLflow can move it."""
    history = _stack(connection)
    if not history or history[-1] != version:
        recorded = f"version {history[-1]}" if history else "none"
        raise RefusedError(
            f"the alias champion points to version {version}, the last recorded promotion is of {recorded}",
            "clear the retraining's promote task to finish it, or 'vigil review rollback' to put the alias right",
        )


def _champion(model: RegisteredModel, decision: Decision, path: Path) -> Champion:
    return Champion(
        version=model.version,
        name=model.name,
        path=path,
        digests=model.digests,
        vocabulary_digest=model.vocabulary_digest,
        decision=decision.kind,
        decision_id=decision.decision_id,
        sentence=decision.sentence,
        decided_by=decision.decided_by,
    )


def warm_start() -> Path | None:
    """Folder of the champion's weights and vocabulary, from which a retraining starts; None without one."""
    found = champion()
    return found.finetuned if found is not None else None


def judged(run: TrainingRun) -> bool:
    """True if a model of this run came to its end: refused by the gate, rejected, or made champion."""
    with connected() as client:
        models = [model for model in all_versions(client) if model.name == run.name]
    with connect(Role.READ, readonly=True) as connection:
        return any(_ended(connection, model) for model in models)


def _ended(connection: Connection, model: RegisteredModel) -> bool:
    if model.gate == "refused":
        return True
    decision = find_decision(connection, model.version, model.digests)
    return decision is not None and (decision.promoted or (decision.counts and not decision.approved))


def promote(version: int, promoted_by: str | None = None) -> Promotion:
    """Make an approved version champion. Idempotent.

    Its files are fetched anew from MLflow, their digests computed again, and the decision row found by them.

    Raises:
        RefusedError: the files are not what was decided on, or no approval counts.
        NotFoundError: there is no such version.
    """
    with connected() as client:
        model = version_info(client, version)
        fetch_files(client, model, fresh=True)
        decision, moved = _append_promotion(model, promoted_by or get_settings().requester)
        moved = _set_champion(client, model) or moved
        return Promotion(version, "promote", decision, moved)


def _append_promotion(model: RegisteredModel, promoted_by: str) -> tuple[Decision, bool]:
    with connect(Role.GOVERN) as connection:
        fetch(connection, _LOCK, (get_settings().model_name,))
        decision = require_approval(connection, model.version, model.digests)
        history = _stack(connection)
        if history and history[-1] == model.version:
            return decision, False
        if decision.promoted:  # a doubled or cleared task must not undo a rollback or a newer promotion
            raise RefusedError(
                f"version {model.version} was champion before and was replaced", "register and approve a new version"
            )
        _insert(connection, model.version, decision, "promote", promoted_by)
    return decision, True


def _insert(
    connection: Connection, version: int, decision: Decision, kind: Literal["promote", "rollback"], by: str
) -> None:
    values = (str(uuid.uuid4()), get_settings().model_name, version, decision.decision_id, kind, by)
    execute(connection, _INSERT, values)


def _set_champion(client: MlflowClient, model: RegisteredModel) -> bool:
    """Move the alias; True if it was elsewhere."""
    name = get_settings().model_name
    moved = CHAMPION not in model.aliases
    if moved:
        client.set_registered_model_alias(name, CHAMPION, str(model.version))
    if CHALLENGER in model.aliases:
        client.delete_registered_model_alias(name, CHALLENGER)
    return moved


def _stack(connection: Connection) -> list[int]:
    """Versions in use, oldest first, the current one last: promotions push, rollbacks pop."""
    versions: list[int] = []
    for version, kind in fetch(connection, _HISTORY, (get_settings().model_name,)):
        if kind == "promote":
            versions.append(version)
        else:
            while versions and versions[-1] != version:
                versions.pop()
    return versions


def rollback(rolled_back_by: str) -> Promotion:
    """Make the previous champion the champion again.

    If the alias is not where the history says (an interrupted step, or a hand in MLflow), it is put there first, and
    that is all.

    Raises:
        NotFoundError: there is no earlier champion.
        RefusedError: its files were changed.
    """
    with connected() as client:
        current = by_alias(client, CHAMPION)
        with connect(Role.GOVERN) as connection:
            fetch(connection, _LOCK, (get_settings().model_name,))
            target, append = _rollback_target(_stack(connection), current)
            model = version_info(client, target)
            fetch_files(client, model, fresh=True)
            decision = require_approval(connection, target, model.digests)
            if append:
                _insert(connection, target, decision, "rollback", rolled_back_by)
        _set_champion(client, model)
        return Promotion(target, "rollback", decision, moved=True)


def _rollback_target(history: list[int], current: RegisteredModel | None) -> tuple[int, bool]:
    """(version, whether it is a new step of the history)."""
    if history and (current is None or current.version != history[-1]):
        return history[-1], False
    if len(history) < 2:
        raise NotFoundError("there is no earlier champion to go back to", "see 'vigil model show'")
    return history[-2], True
