"""Running past days through Airflow's own backfill: start it, follow it to its end, cancel it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.airflow.api import AirflowApi, AirflowError, ConflictError
from infra.airflow.plan import DAG, Plan, day_of, days_between, moment, request
from infra.embedded.watch import GLYPHS, fold
from ml.common.errors import NotFoundError, RefusedError

_ENDED = ("success", "failed")
FOLLOW = "vigil backfill status --follow"


class BackfillFailedError(AirflowError):
    """Days of a backfill ended red."""

    exit_code = 1


@dataclass(frozen=True)
class Backfill:
    """One of Airflow's backfills of the nightly DAG.

    Attributes:
        cancelled: it was paused and ended; runs of it that are cleared afterwards never start.
    """

    number: int
    first: date
    last: date
    reprocess: str
    created_at: datetime
    over: bool
    cancelled: bool

    def covers(self, day: date) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True)
class DayRun:
    """Where the run of one day stands.

    Attributes:
        tasks: running tasks, or the first that failed.
        reason: why it failed; empty otherwise.
    """

    as_of: date
    run_id: str
    state: str
    seconds: float
    tasks: str = ""
    reason: str = ""


def all_backfills(api: AirflowApi) -> list[Backfill]:
    """Every backfill of the nightly DAG, newest first."""
    return [_read(one) for one in api.backfills(DAG)]


def newest(api: AirflowApi) -> Backfill:
    """The backfill that was created last.

    Raises:
        NotFoundError: there is none.
    """
    found = all_backfills(api)
    if not found:
        raise NotFoundError(f"there is no backfill of {DAG}", "start one with 'vigil backfill run'")
    return found[0]


def newest_of(api: AirflowApi, first: date, last: date) -> Backfill | None:
    """The newest backfill that holds a day of a range."""
    return next((one for one in all_backfills(api) if one.first <= last and first <= one.last), None)


def start(api: AirflowApi, plan: Plan, max_active: int) -> Backfill:
    """Create the backfill.

    Raises:
        RefusedError: a day cannot be run, several days would be extracted at once, or the DAG is paused.
        ConflictError: another backfill is under way.
    """
    check(api, plan, max_active)
    return _read(api.create_backfill(request(plan.first, plan.last, plan.reprocess, max_active)))


def check(api: AirflowApi, plan: Plan, max_active: int) -> None:
    """Refuse what would not do what is meant.

    Raises:
        RefusedError, ConflictError: see ``start``.
    """
    _wait_for_the_last(api)
    bad = [day for day in plan.days if day.hindrance]
    if bad:
        raise RefusedError(
            f"{len(bad)} of {len(plan.days)} days cannot be run ({bad[0].as_of}: {bad[0].hindrance})",
            "choose --from and --to so that every day can; 'vigil backfill plan' shows which",
        )
    if not plan.to_run:
        raise RefusedError(
            "every one of these days has a run",
            "--reprocess completed runs them again, --reprocess failed those that failed",
        )
    extracted = [day.as_of for day in plan.days if day.would_run and day.covered_by is None]
    if max_active > 1 and extracted:
        raise RefusedError(
            f"{len(extracted)} days from {extracted[0]} on must be extracted, one after the other",
            "leave --max-active at 1",
        )
    if api.is_paused(DAG):
        raise RefusedError(
            f"the DAG {DAG} is paused: its backfill would wait in the queue",
            "unpause it in Airflow, or give --unpause; its schedule then runs too",
        )


def _wait_for_the_last(api: AirflowApi, patience: float = 90.0) -> None:
    """Wait for a backfill whose runs have ended all: the scheduler takes half a minute to call it over.

    Raises:
        ConflictError: a backfill is under way.
    """
    deadline = time.monotonic() + patience
    while under_way := next((one for one in all_backfills(api) if not one.over), None):
        ended = all(run.state in _ENDED for run in look(api, days_between(under_way.first, under_way.last)))
        if not ended or time.monotonic() > deadline:
            raise ConflictError(
                f"another backfill of {DAG} is under way", f"follow it with '{FOLLOW}', or 'vigil backfill cancel' it"
            )
        time.sleep(1.0)


def stranded(api: AirflowApi, first: date, last: date) -> list[str]:
    """Runs that wait for a backfill that was cancelled: they were cleared afterwards, and Airflow never starts them."""
    known = all_backfills(api)
    if any(not one.over for one in known):
        return []
    asked = request(first, last)
    found = []
    for run in api.dag_runs(DAG, asked.from_date, asked.to_date):
        of = next((one for one in known if one.covers(day_of(run))), None)
        if run["run_type"] == "backfill" and run["state"] == "queued" and of is not None and of.cancelled:
            found.append(str(run["dag_run_id"]))
    return found


def free_stranded(api: AirflowApi, first: date, last: date) -> None:
    """Fail the stranded runs: Airflow takes a run that waits for one that is under way, and reprocesses no such run."""
    for run_id in stranded(api, first, last):
        api.fail(DAG, run_id)


def cancel(api: AirflowApi) -> Backfill:
    """Cancel the backfill that is under way: the queued runs fail, the running ones go on to their end.

    Raises:
        NotFoundError: none is.
    """
    found = newest(api)
    try:
        return _read(api.cancel_backfill(found.number))
    except ConflictError:
        raise NotFoundError(f"no backfill of {DAG} is under way", f"backfill {found.number} has ended") from None


def look(api: AirflowApi, days: Sequence[date], *, reasons: bool = False) -> list[DayRun]:
    """Where the backfilled runs of some days stand, by day. Other runs of the same days are not looked at.

    Args:
        reasons: read why failed ones failed from their logs.
    """
    asked = request(min(days), max(days))
    runs = api.dag_runs(DAG, asked.from_date, asked.to_date)
    chosen = [run for run in runs if run["run_type"] == "backfill" and day_of(run) in set(days)]
    return [_look(api, run, reasons) for run in chosen]


def _look(api: AirflowApi, run: dict[str, Any], reasons: bool) -> DayRun:
    run_id, state = str(run["dag_run_id"]), str(run["state"])
    now = datetime.now(UTC)
    began = run["start_date"] if state != "queued" else None
    ended = moment(run["end_date"]) if run["end_date"] else now
    seconds = (ended - moment(began)).total_seconds() if began else 0.0
    tasks, reason = "", ""
    if state == "running" or (state == "failed" and reasons):
        lines = fold(api.task_instances(DAG, run_id), now)
        tasks = ", ".join(line.task_id for line in lines if line.state == state)
        if state == "failed":
            tasks = next((line.task_id for line in lines if line.state == "failed"), "")
            reason = api.failure(DAG, run_id, tasks) if tasks else "no task of it has run: it was cancelled"
    return DayRun(day_of(run), run_id, state, seconds, tasks, reason)


def follow(api: AirflowApi, days: Sequence[date], console: Console, every: float = 3.0) -> list[DayRun]:
    """Show the runs of some days until all have ended; how they ended.

    Raises:
        BackfillFailedError: at least one ended red, or has no run; the others ran all the same.
    """
    live = Live(console=console, refresh_per_second=2) if console.is_terminal else nullcontext()
    shown: set[date] = set()
    with live as display:
        while True:
            found = look(api, days)
            if display is not None:
                display.update(table(found))
            else:
                _plain(found, shown, len(days), console)
            if all(run.state in _ENDED for run in found):
                break
            time.sleep(every)
    missing = sorted(set(days) - {run.as_of for run in found})
    if missing:  # no run, no end: silence is not success
        raise BackfillFailedError(
            f"{len(missing)} of {len(days)} days have no run, the first {missing[0]}",
            "see in Airflow why it was not created or who deleted it, then run these days again",
        )
    red = [run for run in found if run.state == "failed"]
    if red:
        raise _failure(look(api, [run.as_of for run in red], reasons=True), len(found), console)
    return found


def _failure(red: list[DayRun], count: int, console: Console) -> BackfillFailedError:
    red = [run for run in red if run.state == "failed"]
    for run in red:
        where = f", task {run.tasks}" if run.tasks else ""
        console.print(f"[red]✗[/] {run.as_of}{where}: {run.reason}", highlight=False, soft_wrap=True)
    return BackfillFailedError(
        f"{len(red)} of {count} days ended red, the first {red[0].as_of}",
        f"mend the cause, then 'vigil backfill run --from {red[0].as_of} --to {red[-1].as_of} --reprocess failed'",
    )


def table(runs: Sequence[DayRun]) -> Table:
    """The runs, a line a day."""
    found = Table(box=None, title_justify="left", show_header=False, pad_edge=False)
    for column in ("", "day", "state", "time", "tasks"):
        found.add_column(column, justify="right" if column == "time" else "left", overflow="fold")
    for run in runs:
        seconds = f"{run.seconds:.0f} s" if run.seconds else ""
        note = f"{run.tasks}: {run.reason}" if run.reason else run.tasks
        found.add_row(GLYPHS.get(run.state, "[dim]·[/]"), str(run.as_of), run.state, seconds, f"[dim]{note}[/]")
    return found


def _plain(runs: Sequence[DayRun], shown: set[date], count: int, console: Console) -> None:
    for run in runs:
        if run.state in _ENDED and run.as_of not in shown:
            shown.add(run.as_of)
            console.print(
                f"{run.as_of}  {run.state:<8} {run.seconds:4.0f} s  ({len(shown)} of {count})", highlight=False
            )


def _read(one: dict[str, Any]) -> Backfill:
    over = one["completed_at"] is not None
    return Backfill(
        number=int(one["id"]),
        first=moment(one["from_date"]).date(),
        last=moment(one["to_date"]).date(),
        reprocess=str(one["reprocess_behavior"]),
        created_at=moment(one["created_at"]),
        over=over,
        cancelled=over and bool(one["is_paused"]),
    )
