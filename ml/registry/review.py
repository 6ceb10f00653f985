"""Review: what waits for a person, what there is to see, and the person's answer.

There is no table of requests. What waits is a fact: the version with the alias ``challenger`` on which no decision
counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ml.common.db import Connection, connect
from ml.common.errors import RefusedError
from ml.evaluation.results import Evaluation
from ml.registry.decisions import find_decision, record
from ml.registry.gates import judge
from ml.registry.store import EVALUATION, fetch_files, fetch_report
from ml.registry.tracking import CHALLENGER, CHAMPION, all_versions, connected, version_info
from ml.registry.types import Decision, GateResult, RegisteredModel
from ml.settings import Role, get_settings

State = Literal[
    "champion", "waiting", "approved", "rejected", "expired", "refused by the gate", "superseded", "retired"
]


@dataclass(frozen=True)
class Review:
    """A version and where it stands."""

    model: RegisteredModel
    decision: Decision | None
    state: State


@dataclass(frozen=True)
class Dossier:
    """Everything a person needs to decide; ``report`` is the page to read, None where there was none."""

    review: Review
    evaluation: Evaluation
    gate: GateResult
    report: Path | None = None


def _state(model: RegisteredModel, decision: Decision | None) -> State:
    if CHAMPION in model.aliases:
        return "champion"
    if model.gate != "passed":
        return "refused by the gate"
    if decision is not None and decision.promoted:
        return "retired"
    if decision is not None and decision.counts:
        return "approved" if decision.approved else "rejected"
    if CHALLENGER in model.aliases:
        return "waiting"
    return "expired" if decision is not None else "superseded"


def _review(connection: Connection, model: RegisteredModel) -> Review:
    decision = find_decision(connection, model.version, model.digests)
    return Review(model, decision, _state(model, decision))


def reviews() -> list[Review]:
    """Every version, newest first.

    Raises:
        TrackingError: MLflow does not answer.
    """
    with connected() as client:
        models = all_versions(client)
    with connect(Role.READ, readonly=True) as connection:
        return [_review(connection, model) for model in models]


def dossier(version: int) -> Dossier:
    """A version's evidence, its files verified against the registered digests.

    Raises:
        NotFoundError: there is no such version.
        RefusedError: the files in MLflow are not those that were registered.
    """
    with connected() as client:
        model = version_info(client, version)
        path = fetch_files(client, model)
        page = fetch_report(model) if model.report else None
    evaluation = Evaluation.load(path / EVALUATION)
    with connect(Role.READ, readonly=True) as connection:
        review = _review(connection, model)
    return Dossier(review, evaluation, judge(evaluation, get_settings()), page)


def approved_evaluation(version: int) -> Evaluation:
    """The evaluation that a version was registered with, digest verified.

    Raises:
        NotFoundError: there is no such version.
        RefusedError: the files in MLflow are not those that were registered.
    """
    with connected() as client:
        return Evaluation.load(fetch_files(client, version_info(client, version)) / EVALUATION)


def report(version: int) -> Path:
    """The page that was registered with a version, on this machine.

    Raises:
        NotFoundError: there is no such version, or it has no report.
        RefusedError: the page in MLflow is not the one that was registered.
    """
    with connected() as client:
        return fetch_report(version_info(client, version))


def verified(version: int) -> RegisteredModel:
    """A version that waits for a decision, its files freshly verified and its gate passed again.

    Raises:
        RefusedError: it is no challenger, the gate refuses it, or its files were changed.
    """
    with connected() as client:
        model = version_info(client, version)
        if CHALLENGER not in model.aliases:
            raise RefusedError(f"version {version} does not wait for a decision", "see 'vigil review list'")
        path = fetch_files(client, model, fresh=True)
    verdict = judge(Evaluation.load(path / EVALUATION), get_settings())
    if model.gate != "passed" or not verdict.passed:
        raise RefusedError(f"the gate does not let version {version} through ({verdict.reason})", "train another model")
    return model


def approve(version: int, decided_by: str, reason: str) -> Decision:
    """A person lets a version through.

    Raises:
        RefusedError: it does not wait for a decision, was decided already, or is the requester's own.
        ConfigError: no name or no reason.
    """
    return record(verified(version), approved=True, decided_by=decided_by, reason=reason)


def reject(version: int, decided_by: str, reason: str) -> Decision:
    """A person turns a version down; changed files are no hindrance to that.

    Raises:
        RefusedError: it does not wait for a decision, was decided already, or is the requester's own.
        ConfigError: no name or no reason.
    """
    with connected() as client:
        model = version_info(client, version)
    if CHALLENGER not in model.aliases:
        raise RefusedError(f"version {version} does not wait for a decision", "see 'vigil review list'")
    return record(model, approved=False, decided_by=decided_by, reason=reason)
