"""Watching Airflow runs from a terminal: a live table where there is one, plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from infra.airflow.api import AirflowApi
from ml.common.errors import VigilError
from ml.common.files import read_json

GLYPHS = {
    "success": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "upstream_failed": "[red]·[/]",
    "skipped": "[yellow]–[/]",
    "running": "[cyan]▶[/]",
    "up_for_reschedule": "[cyan]…[/]",
    "up_for_retry": "[yellow]↻[/]",
}
FINAL = {"success", "failed", "upstream_failed", "skipped", "removed"}


@dataclass(frozen=True)
class TaskLine:
    """One task of a run, its mapped instances folded into one line."""

    task_id: str
    state: str
    seconds: float
    done: int
    count: int


class RunFailedError(VigilError):
    """A DAG run ended red."""


def fold(instances: list[dict[str, Any]], now: datetime) -> list[TaskLine]:
    """Task instances as lines, in the order in which the tasks began."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for instance in instances:
        groups.setdefault(instance["task_id"], []).append(instance)
    lines = []
    for task_id, group in groups.items():
        states = [instance.get("state") or "waiting" for instance in group]
        urgent = ("failed", "running", "up_for_retry", "up_for_reschedule", "queued", "scheduled", "upstream_failed")
        state = next((s for s in urgent if s in states), states[0] if len(set(states)) == 1 else "waiting")
        starts = [t for t in (_when(i.get("start_date")) for i in group) if t]
        ends = [_when(i.get("end_date")) or now for i in group if i.get("start_date")]
        seconds = (max(ends) - min(starts)).total_seconds() if starts else 0.0
        lines.append((min(starts, default=None), TaskLine(task_id, state, seconds, _final(states), len(group))))
    lines.sort(key=lambda pair: (pair[0] is None, pair[0] or now))
    return [line for _, line in lines]


def _final(states: list[str]) -> int:
    return sum(state in FINAL for state in states)


def _when(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


class Watcher:
    """Follows runs until they end.

    Args:
        api: the Airflow server.
        console: where to show.
        progress: directory of the stages' progress files.
    """

    def __init__(self, api: AirflowApi, console: Console, progress: Path, every: float = 3.0) -> None:
        self.api, self.console, self.progress, self.every = api, console, progress, every

    def follow(self, dag_id: str, run_id: str, timeout: float = 3600.0) -> list[TaskLine]:
        """Show a run until it ends well; its task lines.

        Raises:
            RunFailedError: it ended red; names the first failed task and the last line of its log.
        """
        live = Live(console=self.console, refresh_per_second=2) if self.console.is_terminal else nullcontext()
        shown: set[tuple[str, str]] = set()
        deadline = time.monotonic() + timeout
        with live as display:
            while True:
                state = self.api.dag_run(dag_id, run_id)["state"]
                lines = fold(self.api.task_instances(dag_id, run_id), datetime.now(UTC))
                if display is not None:
                    display.update(self._table(dag_id, lines))
                else:
                    self._plain(dag_id, lines, shown)
                if state in ("success", "failed"):
                    break
                if time.monotonic() > deadline:
                    raise RunFailedError(f"{dag_id} did not end within {timeout:.0f} s", "look at the Airflow UI")
                time.sleep(self.every)
        if state == "failed":
            raise self._failure(dag_id, run_id, lines)
        return lines

    def _table(self, dag_id: str, lines: list[TaskLine]) -> Table:
        table = Table(title=f"[bold]{dag_id}[/]", box=None, title_justify="left", show_header=False, pad_edge=False)
        for column in ("", "task", "time", "note"):
            table.add_column(column, justify="right" if column == "time" else "left")
        for line in lines:
            count = f" [dim]{line.done}/{line.count}[/]" if line.count > 1 else ""
            note = self._note(line.task_id) if line.state == "running" else ""
            seconds = f"{line.seconds:.0f} s" if line.seconds else ""
            table.add_row(GLYPHS.get(line.state, "[dim]·[/]"), line.task_id + count, seconds, f"[dim]{note}[/]")
        return table

    def _plain(self, dag_id: str, lines: list[TaskLine], shown: set[tuple[str, str]]) -> None:
        for line in lines:
            if line.state in FINAL and line.done == line.count and (line.task_id, line.state) not in shown:
                shown.add((line.task_id, line.state))
                self.console.print(f"{dag_id:<11} {line.task_id:<24} {line.state:<16} {line.seconds:5.0f} s")

    def _note(self, task_id: str) -> str:
        """Newest progress that the running task wrote."""
        file = self.progress / f"{task_id}.json"
        try:
            state = read_json(file)
        except (OSError, ValueError):
            return ""
        share = f"{state['done'] / state['total']:.0%}" if state.get("total") else f"{state['done']:,.0f}"
        return f"{share} {state['note']}"

    def _failure(self, dag_id: str, run_id: str, lines: list[TaskLine]) -> RunFailedError:
        failed = next((line.task_id for line in lines if line.state == "failed"), None)
        if failed is None:
            return RunFailedError(f"{dag_id} failed before any task", "look at the Airflow UI")
        reason = self.api.failure(dag_id, run_id, failed)
        return RunFailedError(f"{dag_id}, task {failed}", reason)


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until ``ready``.

    Raises:
        RunFailedError: it did not happen in time.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise RunFailedError(f"{what} did not happen within {seconds:.0f} s", "look at the logs of the stack")
        time.sleep(1)
