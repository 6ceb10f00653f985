"""`vigil tasks …`: the outcomes that can be predicted."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ml.cohorts.aces import Condition
    from ml.cohorts.evaluability import Evaluability
    from ml.cohorts.tasks import Task

app = typer.Typer(help="The outcomes that can be predicted.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable")]
AsOf = Annotated[
    datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day; default newest")
]


@app.command("list")
def list_tasks(as_json: AsJson = False) -> None:
    """One line for each task."""
    from ml.cohorts.tasks import load_task, task_names

    tasks = [load_task(name) for name in task_names()]
    if as_json:
        typer.echo(json.dumps([{"name": task.name, "description": task.description} for task in tasks], indent=2))
        return
    width = max(len(task.name) for task in tasks)
    for task in tasks:
        typer.echo(f"{task.name:<{width}}  {task.description}")


@app.command()
def describe(
    name: Annotated[str, typer.Argument(help="the task's name")],
    as_json: AsJson = False,
) -> None:
    """A task's definition, codes, windows and source."""
    from ml.cohorts.tasks import load_task

    task = load_task(name)
    if as_json:
        typer.echo(json.dumps(as_values(task), indent=2))
        return
    scope = task.scope
    lines = [
        ("outcome", task.outcome),
        ("window", f"day {task.delay_days} to {task.horizon_days} after the prediction time, the last not counted"),
        ("delay", f"{task.delay_days} days" + "".join(f"; {_words(one)}" for one in task.gap)),
        *(("excluded" if task.is_prior(one) else "population", _words(one)) for one in task.past),
        ("age", f"{scope.minimum_age} years or more"),
        ("look-back", f"an event in the last {scope.look_back_days} days"),
        ("history", f"first event at least {scope.minimum_history_days} days ago"),
        ("source", scope.source or "not stated"),
        ("file", str(task.path)),
    ]
    typer.echo(f"{task.name}: {task.description}")
    for word, text in lines:
        typer.echo(f"  {word:<11}{text}")


@app.command()
def count(
    names: Annotated[list[str] | None, typer.Argument(help="tasks; default all")] = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Subjects at risk and events of each task at the index days of a snapshot, by split."""
    from ml.cohorts.counting import count_tasks
    from ml.cohorts.tasks import task_names

    found = count_tasks(tuple(names or task_names()), as_of.date() if as_of else None)
    if as_json:
        rows = [asdict(one) | {"evaluable": one.evaluable} for one in found.values()]
        typer.echo(json.dumps(rows, indent=2))
    else:
        _show(list(found.values()))


def as_values(task: Task) -> dict[str, Any]:
    """A task as JSON has it."""
    values = asdict(task)
    return values | {"path": str(task.path), "outcome": task.outcome, "excludes_prior": task.excludes_prior}


def _words(condition: Condition) -> str:
    """A condition in words: ``history: outcome at most 0 times ever, ^ICD10CM//I50``."""
    bounds = []
    if condition.least is not None:
        bounds.append(f"at least {condition.least}")
    if condition.most is not None:
        bounds.append(f"at most {condition.most}")
    counted = "moments" if condition.predicate.by_moment else "events"
    span = "" if condition.days is None else f" in {condition.days} days"
    return f"{condition.window}: {' and '.join(bounds)} {counted} of {condition.predicate.name}{span}: " + (
        " or ".join(
            plain.pattern
            + (f" >{'=' * plain.least_counts} {plain.least:g}" if plain.least is not None else "")
            + (f" <{'=' * plain.most_counts} {plain.most:g}" if plain.most is not None else "")
            for plain in condition.predicate.any_of
        )
    )


def _show(found: list[Evaluability]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    caption = "events of rows (subjects with an event of subjects at risk); a row is a subject at an index day"
    table = Table(box=box.SIMPLE, caption=caption, pad_edge=False)
    for head in ("task", *(count.split for count in found[0].counts), "evaluable"):
        table.add_column(head, justify="left" if head in ("task", "evaluable") else "right")
    for one in found:
        cells = [f"{count.events:,} of {count.rows:,} ({count.cases:,} of {count.subjects:,})" for count in one.counts]
        table.add_row(one.task, *cells, "yes" if one.evaluable else f"not evaluable: {one.reason}")
    Console(width=None if Console().is_terminal else 200).print(table)
