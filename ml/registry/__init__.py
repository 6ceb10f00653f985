"""Registry: which model may be used, and who said so.

In: a finished ``TrainingRun`` (weights, vocabulary, evaluation). Out: a gate verdict (arithmetic on the evaluation), a
report for people, a version in MLflow with its digests and the alias ``challenger``, a decision row in Postgres that
binds approver, model, snapshot and metrics, and the alias ``champion``. MLflow holds the files, Postgres the decisions;
whoever uses a model checks one against the other, so that neither a moved alias nor a changed file lets a model
through.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml.registry.champions import champion, judged, promote, rollback, warm_start
    from ml.registry.decisions import decide_by_policy, decision_for
    from ml.registry.gates import gate
    from ml.registry.live import followed
    from ml.registry.registration import register
    from ml.registry.report import write_report
    from ml.registry.types import Champion, Check, Decision, Digests, GateResult, Promotion, RegisteredModel

__all__ = [
    "Champion",
    "Check",
    "Decision",
    "Digests",
    "GateResult",
    "Promotion",
    "RegisteredModel",
    "champion",
    "decide_by_policy",
    "decision_for",
    "followed",
    "gate",
    "judged",
    "promote",
    "register",
    "rollback",
    "warm_start",
    "write_report",
]

_HOME = {
    **dict.fromkeys(("champion", "judged", "promote", "rollback", "warm_start"), "champions"),
    **dict.fromkeys(("decide_by_policy", "decision_for"), "decisions"),
    "followed": "live",
    "gate": "gates",
    "register": "registration",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    """Import a name where it lives when it is first asked for: the command line starts without all this."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'types')}"), name)
