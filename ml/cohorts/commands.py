"""`vigil cohorts …`: tasks and labels."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

app = typer.Typer(help="Tasks, labels and splits.", no_args_is_help=True)
AsOf = Annotated[
    datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day; default newest")
]


@app.command()
def tasks() -> None:
    """List the outcomes that can be predicted."""
    from ml.cohorts.tasks import load_task, task_names

    for name in task_names():
        task = load_task(name)
        typer.echo(f"{name}: {task.description} ({task.horizon_days} days)")


@app.command()
def labels(as_of: AsOf = None) -> None:
    """Make the labels of a run."""
    from ml.cohorts import make_labels, open_run

    for name, count in make_labels(open_run(as_of.date() if as_of else None)).items():
        typer.echo(f"{name}: {count:,} labels")
