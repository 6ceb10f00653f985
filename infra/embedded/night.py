"""One night on one machine: bring the stack and the hospital up, let Airflow run the night, say what came of it."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from infra.embedded.hospitals import COMMON, HOSPITALS, Hospital, find_hospital
from ml.common.errors import SourceError
from ml.settings import get_settings

if TYPE_CHECKING:
    from infra.airflow.api import AirflowApi

NIGHTLY, RETRAINING = "nightly", "retraining"
HOURS = {NIGHTLY: 2, RETRAINING: 4}  # as the DAGs' schedules
PREFIX = "night__"


def night(
    hospital: Annotated[str, typer.Option(help=f"one of {', '.join(HOSPITALS)}")] = "demo",
    records: Annotated[Path | None, typer.Option(help="directory of the hospital's CSV exports")] = None,
    as_of: Annotated[str | None, typer.Option(help="the day, ISO 8601; default: the day after the last night")] = None,
    train: Annotated[bool, typer.Option(help="run the retraining after the night")] = True,
) -> None:
    """Run one night on the embedded stack: start it, fill the hospital, extract, validate, train, publish.

    The first call sets everything up; each further call runs the day after the last night.
    The stack stays up for you to look around; `vigil stack down` stops it.
    """
    console = Console()
    started = time.monotonic()
    chosen = find_hospital(hospital)
    _bring_up(chosen, records, console)
    api = _api()
    day = date.fromisoformat(as_of) if as_of else _next_day(chosen, api)
    console.print(f"[bold]The night of {day}[/]")
    _advance(chosen, day, console)
    _run(api, day, train, console)
    from infra.embedded.summary import show_summary

    show_summary(day, console)
    console.print(f"\n[dim]The night took {_duration(time.monotonic() - started)}.[/]")


def _duration(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _bring_up(hospital: Hospital, records: Path | None, console: Console) -> None:
    """Start the stack, and fill the EHR database as soon as Postgres is there."""
    from infra.embedded import stack

    home = get_settings().home
    command = hospital.load_command(records)
    settings = {"VIGIL_HOSPITAL": hospital.name, **COMMON, **hospital.settings}
    console.print(f"[bold]Vigil[/] watches over {hospital.about}.")
    with console.status("starting Postgres"):
        stack.start_database(home, settings)
    with ThreadPoolExecutor(1) as pool, console.status("starting MLflow and Airflow, filling the hospital's database"):
        loading = pool.submit(_load, command)
        stack.start(home, settings)
        console.print("[green]✓[/] Postgres, MLflow and Airflow are up")
        lines = loading.result()
        console.print("[green]✓[/] the hospital's database is filled")
        for line in lines:
            console.print(Text(f"  {line}", style="dim"), soft_wrap=True)


def _load(command: list[str]) -> list[str]:
    """Run a loader; the lines it printed.

    Raises:
        ConfigError: it failed; the loader's own last line is the cause.
    """
    result = subprocess.run([sys.executable, "-m", "ml.cli", *command], capture_output=True, text=True)
    if result.returncode:
        lines = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()
        raise SourceError("the hospital's database was not filled", lines[-1])
    return result.stdout.strip().splitlines()


def _api() -> AirflowApi:
    from infra.airflow.api import AirflowApi

    return AirflowApi(get_settings().airflow_url)


def _next_day(hospital: Hospital, api: AirflowApi) -> date:
    """The last night if it is unfinished, else the day after it; on the first night, the last day of the records."""
    nights = {_day(run): run["state"] for run in api.dag_runs(NIGHTLY) if run["dag_run_id"].startswith(PREFIX)}
    if not nights:
        return hospital.last_day()
    last = max(nights)
    trainings = {_day(run): run["state"] for run in api.dag_runs(RETRAINING)}
    done = nights[last] == "success" and trainings.get(last) == "success"
    return last + timedelta(days=1) if done else last


def _day(run: dict[str, Any]) -> date:
    return datetime.fromisoformat(run["logical_date"].replace("Z", "+00:00")).date()


def _advance(hospital: Hospital, day: date, console: Console) -> None:
    """Let the demo hospital live until the end of the day; other hospitals have no more rows than they have."""
    if hospital.name != "demo":
        return
    from ml.demo import advance, today

    if today() < day:
        advance(day)
        console.print(f"[green]✓[/] the hospital has lived until {day}")


def _run(api: AirflowApi, day: date, train: bool, console: Console) -> None:
    """Let Airflow run the day's DAGs, one after the other, and show them."""
    from infra.embedded.watch import Watcher

    with console.status("Airflow reads the DAGs"):
        api.wait_for_dags({NIGHTLY, RETRAINING})
    watcher = Watcher(api, console, get_settings().data_dir / "progress")
    for dag_id in (NIGHTLY, RETRAINING) if train else (NIGHTLY,):
        api.unpause(dag_id)
        watcher.follow(dag_id, ensure_run(api, dag_id, day))


def ensure_run(api: AirflowApi, dag_id: str, day: date) -> str:
    """The id of the run of a day: a running one is joined, a failed one continued, an absent one created."""
    hour = HOURS[dag_id]
    start = datetime.combine(day, clock(hour), UTC)
    run_id = f"{PREFIX}{day.isoformat()}"
    run = api.trigger(dag_id, run_id, start, start, start + timedelta(days=1))
    if run["state"] == "failed":
        api.clear(dag_id, run_id)
    return run_id
