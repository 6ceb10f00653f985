"""What a backfill would do, day by day, before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from infra.airflow.api import AirflowApi, BackfillRequest
from infra.airflow.source_days import SourceDays
from ml.common.db import connect, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.publication.history import Answer, answers
from ml.publication.types import RISK_SCORES, TABLES
from ml.settings import Role, get_settings

if TYPE_CHECKING:
    from ml.extraction import Snapshot
    from ml.extraction.log import Partition

DAG = "nightly"
REPROCESS = ("none", "failed", "completed")
_COUNTED = 35  # days up to its last that a partition's manifest counts one by one
_MEASURED = 20  # newest successful nights behind an estimate
_CHAMPION = """
select model_version from governance.promotions where model_name = %s
order by promoted_at desc, promotion_id desc limit 1
"""
_CURRENT = "select table_name, as_of from published.current_releases order by 1"


@dataclass(frozen=True)
class DayPlan:
    """What a backfill would do with one day.

    Attributes:
        hindrance: why the day cannot be run; None where it can.
        run: state of the run that Airflow has for the day, None where it has none.
        would_run: whether Airflow would run it, given what is asked about days that have a run.
        covered_by: the committed partition that holds the day's rows, so that nothing is extracted; or None.
        snapshot: digest of the day's snapshot; None where it would be made.
        rows: what became known on that day; None where the log does not keep count of a day so long before its
            partition's end.
        rows_in: ``log`` (events) or ``source`` (rows, not yet extracted).
        releases: by table, what would be published.
    """

    as_of: date
    hindrance: str | None
    run: str | None
    would_run: bool
    covered_by: str | None
    snapshot: str | None
    rows: int | None
    rows_in: str
    releases: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """What a backfill would do.

    Attributes:
        champion: version of the model that would score; None without one.
        seconds_per_day: median of the nights measured; None where none was.
        nights_measured: successful nights behind it.
        base_load: only the night of the base load was measured, which does more than a night does.
        untouched: what stays as it is, in sentences.
    """

    first: date
    last: date
    reprocess: str
    champion: int | None
    days: tuple[DayPlan, ...]
    seconds_per_day: float | None
    nights_measured: int
    base_load: bool
    untouched: tuple[str, ...]

    @property
    def to_run(self) -> list[date]:
        return [day.as_of for day in self.days if day.would_run]

    @property
    def seconds(self) -> float | None:
        """Estimate for all days, one after the other."""
        return None if self.seconds_per_day is None else self.seconds_per_day * len(self.to_run)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"to_run": self.to_run, "seconds": self.seconds}


def request(first: date, last: date, reprocess: str = "none", max_active: int = 1) -> BackfillRequest:
    """The backfill of whole days: to their last second, since a date alone would mean its midnight.

    Raises:
        RefusedError: the days are the wrong way round, or ``reprocess`` is no such word.
    """
    if last < first:
        raise RefusedError(f"{first} comes after {last}", "give the earlier day to --from")
    if reprocess not in REPROCESS:
        raise RefusedError(f"'{reprocess}' is no way to treat days that have a run", f"use {', '.join(REPROCESS)}")
    end = datetime.combine(last, time(23, 59, 59), UTC)
    return BackfillRequest(DAG, datetime.combine(first, time.min, UTC), end, reprocess, max_active)


def make_plan(api: AirflowApi, first: date, last: date, reprocess: str = "none") -> Plan:
    """Look at Airflow, the event log, the source and what is published.

    Raises:
        AirflowError: Airflow does not answer.
        SourceError: a day's rows must be counted in the source, and it does not answer.
    """
    asked = request(first, last, reprocess)
    would = {one.date() for one in api.would_backfill(asked)} if first < datetime.now(UTC).date() else set()
    runs = api.dag_runs(DAG, asked.from_date, asked.to_date)
    # A run that was triggered by hand has another logical date: Airflow does not take it for the day's run.
    known = {day_of(run): str(run["state"]) for run in runs if run["logical_date"] == run["data_interval_start"]}
    days = days_between(first, last)
    log, source = _Log(days), SourceDays(days)
    champion = _champion()
    published = answers(first, last)
    planned = tuple(_plan_day(day, day in would, known.get(day), log, source, published, champion) for day in days)
    to_run = [day.as_of for day in planned if day.would_run]
    seconds, measured, base_load = _seconds_per_night(api, log)
    untouched = _untouched(log, champion, max(to_run, default=last))
    return Plan(first, last, reprocess, champion, planned, seconds, measured, base_load, untouched)


def days_between(first: date, last: date) -> list[date]:
    """Every day from ``first`` to ``last``, both included."""
    return [first + timedelta(days=k) for k in range((last - first).days + 1)]


def day_of(run: dict[str, Any]) -> date:
    """The day that one of the API's runs stands for."""
    return moment(run["data_interval_start"] or run["logical_date"]).date()


def moment(text: str) -> datetime:
    """One of the API's times, aware."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


class _Log:
    """The event log and its snapshots, as far as they concern some days."""

    def __init__(self, days: Sequence[date]) -> None:
        from ml.extraction.log import committed_partitions

        self.partitions = committed_partitions()
        self.snapshots = {day: found for day in days if (found := _snapshot(day)) is not None}

    def covering(self, day: date) -> Partition | None:
        return next((partition for partition in self.partitions if day <= partition.recorded_to), None)

    @property
    def covered_until(self) -> date | None:
        return self.partitions[-1].recorded_to if self.partitions else None


def _snapshot(day: date) -> Snapshot | None:
    from ml.extraction import load_snapshot

    try:
        return load_snapshot(day)
    except NotFoundError:
        return None


def _plan_day(
    day: date,
    would_run: bool,
    run: str | None,
    log: _Log,
    source: SourceDays,
    published: list[Answer],
    champion: int | None,
) -> DayPlan:
    covering, snapshot = log.covering(day), log.snapshots.get(day)
    hindrance = _hindrance(day, would_run, run, log, source)
    rows = None
    if covering:
        rows = _events(covering, day)
    elif hindrance is None:
        rows = source.rows.get(day, 0)
    return DayPlan(
        day,
        hindrance,
        run,
        would_run and hindrance is None,
        covering.name if covering else None,
        snapshot.digest if snapshot else None,
        rows,
        "log" if covering else "source",
        {
            name: _expect(name, [a for a in published if a.as_of == day and a.table == name], snapshot, champion)
            for name in TABLES
        },
    )


def _events(partition: Partition, day: date) -> int | None:
    """Events that became known on a day; None where the manifest no longer counts days so long before its last."""
    newest = max(partition.days, default=None)
    if newest is None:
        return None if partition.total else 0
    counted = (date.fromisoformat(newest) - day).days < _COUNTED
    return partition.days.get(day.isoformat(), 0 if counted else None)


def _hindrance(day: date, would_run: bool, run: str | None, log: _Log, source: SourceDays) -> str | None:
    """Why a day cannot be run."""
    end = get_settings().calendar_end
    if end and day > end:
        return f"after the end of the calendar, {end}"
    if day >= datetime.now(UTC).date():
        return "not over (UTC)"
    if not would_run and run is None:
        return "its night has not come"
    if day in log.snapshots:
        return None
    if source.span is None:
        return "the source holds no record"
    first, last = source.span
    if day < first:
        return f"before the source's first record, {first}"
    if log.covering(day) is None and day > last:
        return f"after the source's newest record, {last}: rows may still come"
    return None


def _expect(name: str, own: list[Answer], snapshot: Snapshot | None, champion: int | None) -> str:
    """What would be published, in words."""
    if name == RISK_SCORES.name and champion is None:
        return "skipped: no champion"
    by = f" by version {champion}" if name == RISK_SCORES.name else ""
    if not own:
        return f"first release{by}"
    last = own[-1]
    if snapshot is None or last.snapshot_digest != snapshot.digest:
        return f"new release{by}: the last one is of another snapshot"
    if name == RISK_SCORES.name and last.model_version != champion:
        return f"new release{by}: the last one is by version {last.model_version}"
    return "published; a new release only if code or settings changed"


def _champion() -> int | None:
    """The version that was promoted, or rolled back to, last; whether it still may score, scoring itself verifies."""
    with connect(Role.READ, readonly=True) as connection:
        rows = fetch(connection, _CHAMPION, (get_settings().model_name,))
    return int(rows[0][0]) if rows else None


def _untouched(log: _Log, champion: int | None, last: date) -> tuple[str, ...]:
    with connect(Role.READ, readonly=True) as connection:
        current = fetch(connection, _CURRENT)
    lines = [
        f"current {table} stays at {as_of}"
        if last < as_of
        else f"current {table}, now of {as_of}, never moves to an earlier day; a later one would become current"
        for table, as_of in current
    ]
    lines.append(f"{len(log.partitions)} committed partitions, up to {log.covered_until}, are read and never rewritten")
    lines.append(f"the registry: version {champion} stays champion" if champion else "the registry: no champion")
    lines.append("nothing is trained: no backfill triggers retraining")
    return tuple(lines)


def _seconds_per_night(api: AirflowApi, log: _Log) -> tuple[float | None, int, bool]:
    """Median duration of the newest successful nights, their number, and whether it is the base load's alone."""
    base = log.partitions[0].as_of if log.partitions else None
    newest = [run for run in api.last_successes(DAG, _MEASURED) if run["start_date"] and run["end_date"]]
    usual = [run for run in newest if day_of(run) != base]
    seconds = [(moment(run["end_date"]) - moment(run["start_date"])).total_seconds() for run in usual or newest]
    return (median(seconds) if seconds else None), len(seconds), bool(newest and not usual)
