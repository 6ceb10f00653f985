"""Rows of the surveillance of outcomes: what they hold, how they are kept and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any

from ml.common.db import Connection, connect, execute, fetch
from ml.common.errors import VigilError
from ml.evaluation.results import Estimate
from ml.publication.fences import SQL
from ml.settings import Role, get_settings

FACTS = (
    "model_name",
    "model_version",
    "month",
    "outcome",
    "horizon_days",
    "as_of",
    "release_id",
    "snapshot_as_of",
    "n",
    "events",
)
CALIBRATION, DISCRIMINATION = "calibration", "discrimination"


class OutcomeAlert(VigilError):  # noqa: N818 - it says what stands, not what failed
    """Published risks have left their bounds."""

    exit_code = 8


@dataclass(frozen=True)
class Metrics:
    """What happened against what was said; each None where it cannot be told.

    Attributes:
        slope, intercept: of calibration, as in an evaluation.
        observed_expected: events over the sum of the risks; 1 is ideal.
    """

    auroc: Estimate | None = None
    brier: Estimate | None = None
    slope: Estimate | None = None
    intercept: Estimate | None = None
    observed_expected: Estimate | None = None


NAMES = tuple(one.name for one in fields(Metrics))


@dataclass(frozen=True)
class Watched:
    """A month, model version and outcome: what was said beside what happened.

    Attributes:
        month: its first day. as_of: the published day that is judged, the month's first by this version.
        snapshot_as_of: what happened is as this snapshot knows it.
        n, events: patients in scope, and with the outcome; None where a small count would be told.
        approved_auroc: on held-out patients, when the version was let through; None where it does not know the outcome.
        alerts: which bounds are left: ``calibration``, ``discrimination``.
        reason: why there are no metrics.
    """

    model_name: str
    model_version: int
    month: date
    outcome: str
    horizon_days: int
    as_of: date
    release_id: str
    snapshot_as_of: date
    n: int | None
    events: int | None
    metrics: Metrics = Metrics()
    approved_auroc: float | None = None
    alerts: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def key(self) -> tuple[int, date, str]:
        """Unique within a model's name."""
        return self.model_version, self.month, self.outcome

    def sentence(self) -> str:
        """What is wrong, for a log or a person; empty without an alert."""
        parts = []
        if CALIBRATION in self.alerts:
            parts.append(f"observed over expected events is {self.metrics.observed_expected}")
        if DISCRIMINATION in self.alerts:
            was = f"it was {self.approved_auroc:.3f} when the version was let through"
            parts.append(f"AUROC is {self.metrics.auroc}, {was}")
        words = " and ".join(parts)
        return f"{self.outcome}, {self.month:%Y-%m}, version {self.model_version}: {words}" if words else ""

    def as_json(self) -> dict[str, Any]:
        """Plain values: days as text, intervals as objects."""
        found = {name: getattr(self.metrics, name) for name in NAMES}
        plain = {name: e.model_dump() if e is not None else None for name, e in found.items()}
        days = {name: str(getattr(self, name)) for name in ("as_of", "snapshot_as_of")}
        values = {name: value for name, value in vars(self).items() if name != "metrics"}
        return {**values, **plain, **days, "month": f"{self.month:%Y-%m}", "alerts": list(self.alerts)}


def read_watched(connection: Connection) -> list[Watched]:
    """Every row of the settings' model, by outcome and month."""
    rows = fetch(connection, (SQL / "read_surveillance.sql").read_text(), {"model_name": get_settings().model_name})
    return [_watched(row) for row in rows]


def all_watched() -> list[Watched]:
    """``read_watched`` as the readers' role."""
    with connect(Role.READ, readonly=True) as connection:
        return read_watched(connection)


def write_watched(rows: Sequence[Watched]) -> None:
    """Keep rows, all or none; the same again changes nothing."""
    statement = (SQL / "write_surveillance.sql").read_text()
    with connect(Role.PUBLISH) as connection:
        for row in rows:
            execute(connection, statement, _values(row))


def standing(rows: Sequence[Watched]) -> list[Watched]:
    """Alerts in the newest judged month of each outcome: an older one was answered, or is answered by a newer month."""
    newest: dict[str, date] = {}
    for row in rows:
        if row.reason is None:
            newest[row.outcome] = max(newest.get(row.outcome, row.month), row.month)
    return [row for row in rows if row.alerts and row.month == newest.get(row.outcome)]


def _values(row: Watched) -> dict[str, Any]:
    values = {**vars(row), "alerts": list(row.alerts)}
    del values["metrics"]
    for name in NAMES:
        found: Estimate | None = getattr(row.metrics, name)
        parts = (found.value, found.low, found.high) if found else (None, None, None)
        values |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
    return values


def _watched(row: tuple[Any, ...]) -> Watched:
    facts, numbers, (approved, alerts, reason) = row[:10], row[10:25], row[25:]
    triples = [numbers[k : k + 3] for k in range(0, 15, 3)]
    metrics = Metrics(*(None if v is None else Estimate(value=v, low=low, high=high) for v, low, high in triples))
    rest = {"metrics": metrics, "approved_auroc": approved, "alerts": tuple(alerts), "reason": reason}
    return Watched(**dict(zip(FACTS, facts, strict=True)), **rest)
