"""`vigil backfill`: past nights again, planned, run and compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from infra.airflow.api import AirflowApi
    from infra.airflow.plan import Plan
    from ml.publication.history import DayDiff

app = typer.Typer(
    no_args_is_help=True,
    help="Run past nights again through Airflow: plan, run, diff. Nothing is retrained, and what is current never "
    "moves to an earlier day. docs/runbooks/backfill.md tells when and how.",
)

First = Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], metavar="DAY", help="first day")]
Last = Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], metavar="DAY", help="last day, included")]
Reprocess = Annotated[
    str,
    typer.Option(help="days that have a run: none leaves them, failed runs the failed ones again, completed runs all"),
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def plan(first: First, last: Last, reprocess: Reprocess = "none", as_json: AsJson = False) -> None:
    """Say what a backfill would do, day by day, and what it leaves as it is. Nothing is done."""
    from infra.airflow.backfill import stranded
    from infra.airflow.plan import make_plan

    api = _api()
    found = make_plan(api, first.date(), last.date(), reprocess)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, default=str))
        return
    _show_plan(found)
    _show_stranded(stranded(api, found.first, found.last), found.first, found.last)


@app.command()
def run(
    first: First,
    last: Last,
    reprocess: Reprocess = "none",
    max_active: Annotated[
        int, typer.Option(min=1, help="days at once; more than 1 only where nothing must be extracted")
    ] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="check all and name the days, but create nothing")] = False,
    unpause: Annotated[
        bool, typer.Option("--unpause", help="unpause the DAG first, which starts its schedule")
    ] = False,
) -> None:
    """Run past days through Airflow's backfill and follow them to their end.

    Exits with 0 if every day ended well, with 1 if one ended red. Ctrl-C leaves the backfill running.
    """
    from rich.console import Console

    from infra.airflow import backfill
    from infra.airflow.plan import DAG, make_plan

    api, console = _api(), Console()
    if not dry_run and reprocess != "none":
        backfill.free_stranded(api, first.date(), last.date())
    found = make_plan(api, first.date(), last.date(), reprocess)
    if unpause and not dry_run:
        api.unpause(DAG)
    if dry_run:
        backfill.check(api, found, max_active)
        console.print(f"{_count(found.to_run)} would run: {', '.join(map(str, found.to_run))}", highlight=False)
        return
    started = backfill.start(api, found, max_active)
    console.print(f"backfill {started.number}: {_count(found.to_run)}, {_cost(found)}", highlight=False)
    _follow(api, found.to_run, console)
    console.print(f"what changed: vigil backfill diff --from {found.first} --to {found.last}", highlight=False)


@app.command()
def status(
    follow: Annotated[bool, typer.Option("--follow", help="show it until it has ended")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the newest backfill and where each of its days stands."""
    from rich.console import Console

    from infra.airflow import backfill

    api, console = _api(), Console()
    newest = backfill.newest(api)
    days = _days(newest.first, newest.last)
    if follow:
        _follow(api, days, console)
        return
    runs = backfill.look(api, days, reasons=True)
    stuck = backfill.stranded(api, newest.first, newest.last)
    if as_json:
        known = {"backfill": asdict(newest), "days": [asdict(one) for one in runs], "stranded": stuck}
        typer.echo(json.dumps(known, indent=2, default=str))
        return
    state = "cancelled" if newest.cancelled else "over" if newest.over else "under way"
    console.print(f"backfill {newest.number}, {newest.first} to {newest.last}: {state}", highlight=False)
    console.print(backfill.table(runs))
    _show_stranded(stuck, newest.first, newest.last)


@app.command()
def cancel() -> None:
    """Cancel the backfill under way: queued days fail, days that run go on to their end."""
    from infra.airflow import backfill

    found = backfill.cancel(_api())
    typer.echo(
        f"backfill {found.number} is cancelled; later, "
        f"'vigil backfill run --from {found.first} --to {found.last} --reprocess failed' runs what was left"
    )


@app.command()
def diff(
    first: First,
    last: Last,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="compare what was published before this moment (UTC) with what was since; "
            "default: the start of the newest backfill of these days",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was published of past days before and after a backfill: counts and means, never a row."""
    from ml.publication.history import compare_days

    moment = since if since is None or since.tzinfo else since.replace(tzinfo=UTC)
    chosen = moment or _start_of_newest(first.date(), last.date())
    found = compare_days(_days(first.date(), last.date()), chosen)
    if as_json:
        typer.echo(json.dumps({"since": chosen, "days": [_as_json(one) for one in found]}, indent=2, default=str))
    else:
        _show_diff(found, chosen)


def _api() -> AirflowApi:
    from infra.airflow.api import AirflowApi
    from ml.settings import get_settings

    return AirflowApi(get_settings().airflow_url)


def _follow(api: AirflowApi, days: list[date], console: Any) -> None:
    """Follow to the end; Ctrl-C stops the following alone."""
    from infra.airflow import backfill

    try:
        backfill.follow(api, days, console)
    except KeyboardInterrupt:
        console.print(f"\nthe backfill goes on: '{backfill.FOLLOW}' shows it again, 'vigil backfill cancel' ends it")
        raise typer.Exit(130) from None


def _start_of_newest(first: date, last: date) -> datetime:
    from infra.airflow import backfill
    from ml.common.errors import NotFoundError

    found = backfill.newest_of(_api(), first, last)
    if found is None:
        raise NotFoundError(f"no backfill holds a day from {first} to {last}", "give the moment to compare at, --since")
    return found.created_at


def _days(first: date, last: date) -> list[date]:
    from infra.airflow.plan import days_between, request

    request(first, last)  # refuses the wrong way round
    return days_between(first, last)


def _count(days: list[date]) -> str:
    return "1 day" if len(days) == 1 else f"{len(days)} days"


def _cost(plan: Plan) -> str:
    if plan.seconds is None:
        return "no night was measured yet, so the time is unknown"
    total = f"{plan.seconds / 60:.0f} min" if plan.seconds >= 120 else f"{plan.seconds:.0f} s"
    if plan.base_load:
        return f"at most {total} one by one ({plan.seconds_per_day:.0f} s a day, as the night of the base load took)"
    nights = "1 night" if plan.nights_measured == 1 else f"{plan.nights_measured} nights"
    return f"about {total} one by one ({plan.seconds_per_day:.0f} s a day, median of {nights})"


def _show_plan(plan: Plan) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=box.SIMPLE, title=f"Backfill of nightly, {plan.first} to {plan.last}", title_justify="left")
    for heading in ("day", "what", "recorded", "snapshot", "risk scores", "interconnections"):
        table.add_column(heading, justify="right" if heading == "recorded" else "left", overflow="fold")
    for day in plan.days:
        rows = "" if day.rows is None else f"{day.rows:,} {'events' if day.rows_in == 'log' else 'source rows'}"
        shown = day.snapshot[:12] if day.snapshot else "from the log" if day.covered_by else "after extraction"
        released = [*day.releases.values()] if day.would_run else ["", ""]
        table.add_row(str(day.as_of), _what(day, plan.reprocess), rows, "" if day.hindrance else shown, *released)
    console.print(table, highlight=False)
    console.print(f"{_count(plan.to_run)} would run: {_cost(plan)}", highlight=False)
    for line in plan.untouched:
        console.print(f"[dim]stays[/] {line}", highlight=False)


def _show_stranded(run_ids: list[str], first: date, last: date) -> None:
    if run_ids:
        typer.secho(
            f"{len(run_ids)} runs were cleared after their backfill was cancelled and never start by themselves: "
            f"'vigil backfill run --from {first} --to {last} --reprocess failed' takes them up",
            fg=typer.colors.YELLOW,
        )


def _what(day: Any, reprocess: str) -> str:
    if day.hindrance:
        return f"not possible: {day.hindrance}"
    if not day.would_run:
        return f"left, it has a run: {day.run}"
    how = "runs" if day.run is None else f"runs again, over a run that is {day.run}"
    return how + ("" if day.covered_by else ", extracts")


def _as_json(one: DayDiff) -> dict[str, Any]:
    return {**asdict(one), "outcome": one.outcome}


def _show_diff(found: list[DayDiff], since: datetime) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        box=box.SIMPLE, title=f"Published before and since {since:%Y-%m-%d %H:%M:%S} UTC", title_justify="left"
    )
    right = ("before", "now", "added", "removed", "changed", "mean |Δ|")
    for heading in ("day", "table", "what", "outcome or method", *right):
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for one in found:
        head = (str(one.as_of), one.table, _words(one))
        for place, part in enumerate(one.parts):
            numbers = (part.rows_before, part.rows_after, part.added, part.removed, part.changed)
            mean = "" if part.mean_change is None else f"{part.mean_change:.4f}"
            table.add_row(*(head if not place else ("", "", "")), part.part, *(f"{n:,}" for n in numbers), mean)
        if not one.parts:
            rows = f"{one.after.rows:,}" if one.after else ""
            table.add_row(*head, "", f"{one.before.rows:,}" if one.before else "", rows, "", "", "", "")
    console.print(table, highlight=False)
    for line in sorted({_made_by(one) for one in found if one.after} - {""}):
        console.print(line, highlight=False)


def _words(one: DayDiff) -> str:
    snapshots = ""
    if one.before and one.after and one.before.snapshot_digest != one.after.snapshot_digest:
        snapshots = f", snapshot {one.before.snapshot_digest[:8]} → {one.after.snapshot_digest[:8]}"
    models = ""
    if one.before and one.after and one.before.model_version != one.after.model_version:
        models = f", version {one.before.model_version} → {one.after.model_version}"
    words = {"kept": "not published again", "first": "first release", "not published": "nothing published"}
    return words.get(one.outcome, one.outcome) + models + snapshots


def _made_by(one: DayDiff) -> str:
    """Which model scored a day, and when."""
    made = one.after_made
    if made is None or made.model_name is None or one.after is None:
        return ""
    standing = "current" if one.after.current else "not current"
    return (
        f"{one.as_of}: scored by {made.model_name} version {one.after.model_version} on "
        f"{made.made_at:%Y-%m-%d %H:%M} UTC, {standing}"
    )
