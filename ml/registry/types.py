"""What the registry hands over: frozen, and free of anything about a patient."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

Number = float | int | None


@dataclass(frozen=True)
class Check:
    """One arithmetic condition of the gate.

    Attributes:
        name: what is checked, e.g. ``events``.
        task: the outcome it is about, or None for the run as a whole.
        passed: whether the condition holds; None where it could not be told.
        blocking: whether a failure refuses the model.
        numbers: what was compared with what.
        sentence: the same for a person.
    """

    name: str
    task: str | None
    passed: bool | None
    blocking: bool
    numbers: dict[str, Number]
    sentence: str


@dataclass(frozen=True)
class GateResult:
    """The verdict on one run.

    Attributes:
        passed: every blocking check holds, and there was something to check.
        reason: why not, or what it rests on; one line.
        evaluable: outcomes with enough events to judge.
        metrics_digest: digest of the evaluation that was judged.
    """

    run: str
    passed: bool
    reason: str
    evaluable: tuple[str, ...]
    not_evaluable: tuple[str, ...]
    checks: tuple[Check, ...]
    metrics_digest: str

    def summary(self) -> dict[str, Any]:
        """Small JSON for a task's log and XCom."""
        failed = [c.name if c.task is None else f"{c.task}.{c.name}" for c in self.checks if refuses(c)]
        return {"run": self.run, "passed": self.passed, "reason": self.reason, "failed": failed}

    def to_json(self) -> dict[str, Any]:
        """Everything, as gate.json holds it."""
        return asdict(self)


def refuses(check: Check) -> bool:
    """A blocking check refuses unless it holds: what could not be told does not pass."""
    return check.blocking and check.passed is not True


@dataclass(frozen=True)
class Digests:
    """What a decision binds, all SHA-256, hexadecimal: the weights, the data, and the evaluation."""

    model: str
    snapshot: str
    metrics: str


@dataclass(frozen=True)
class RegisteredModel:
    """A version in MLflow.

    Attributes:
        name: name of the training run.
        run_id: MLflow's run.
        gate: verdict at registration.
        aliases: of this version.
        source: where MLflow keeps the model's files.
        report: SHA-256 of the report that was registered with it; None where there was none.
    """

    version: int
    name: str
    run_id: str
    gate: Literal["passed", "refused"]
    digests: Digests
    vocabulary_digest: str
    requested_by: str
    aliases: tuple[str, ...] = ()
    source: str = ""
    report: str | None = None

    def summary(self) -> dict[str, Any]:
        """Small JSON for a task's log and XCom."""
        return {"version": self.version, "run": self.name, "gate": self.gate, "model_digest": self.digests.model}


@dataclass(frozen=True)
class Decision:
    """A row of governance.decisions.

    Attributes:
        expired: it came to its end unused (server's clock).
        promoted: the model was made champion on it before it expired.
    """

    decision_id: str
    version: int
    approved: bool
    decided_by: str
    by_policy: bool
    requested_by: str
    reason: str
    digests: Digests
    decided_at: datetime
    expires_at: datetime
    expired: bool
    promoted: bool

    @property
    def kind(self) -> Literal["policy", "human"]:
        """Who let the model through (or did not): a setting or a person."""
        return "policy" if self.by_policy else "human"

    @property
    def counts(self) -> bool:
        """An unused decision counts until it expires; a model promoted in time stays let through."""
        return self.promoted or not self.expired

    @property
    def sentence(self) -> str:
        """One line for a person."""
        verb = "let through" if self.approved else "rejected"
        who = "by policy, no person has reviewed it" if self.by_policy else f"by {self.decided_by}"
        return f"{verb} {who} on {self.decided_at:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class Champion:
    """The model in use, its files on this machine, and the decision behind it.

    Attributes:
        path: data/models/<version>, with ``finetuned/`` (weights, configuration, vocabulary) and ``evaluation.json``;
            digests verified.
    """

    version: int
    name: str
    path: Path
    digests: Digests
    vocabulary_digest: str
    decision: Literal["policy", "human"]
    decision_id: str
    sentence: str
    decided_by: str

    @property
    def finetuned(self) -> Path:
        return self.path / "finetuned"

    @property
    def vocabulary(self) -> Path:
        return self.finetuned / "vocabulary.json"


@dataclass(frozen=True)
class Promotion:
    """The champion was set, or was found set already (``moved`` is False)."""

    version: int
    kind: Literal["promote", "rollback"]
    decision: Decision
    moved: bool

    def summary(self) -> dict[str, Any]:
        """Small JSON for a task's log and XCom."""
        return {
            "version": self.version,
            "kind": self.kind,
            "moved": self.moved,
            "decision": self.decision.kind,
            "decided_by": self.decision.decided_by,
        }
