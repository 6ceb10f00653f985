"""`vigil evaluate …`: judge a training run, read what was found."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml.evaluation.results import Evaluation

app = typer.Typer(help="Models of a run against each other on held-out patients.", no_args_is_help=True)
AsOf = Annotated[
    datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day; default newest")
]


@app.command()
def run(as_of: AsOf = None) -> None:
    """Train the baselines and judge every model of a run."""
    from ml.cohorts import open_run
    from ml.evaluation import evaluate

    _print(evaluate(open_run(as_of.date() if as_of else None)))


@app.command()
def show(
    as_of: AsOf = None, as_json: Annotated[bool, typer.Option("--json", help="everything, as JSON")] = False
) -> None:
    """Show the evaluation of a run."""
    from ml.cohorts import open_run
    from ml.evaluation.results import Evaluation

    found = Evaluation.load(open_run(as_of.date() if as_of else None).evaluation)
    if as_json:
        typer.echo(json.dumps(found.model_dump(mode="json")))
    else:
        _print(found)


def _print(evaluation: Evaluation) -> None:
    for task, models in evaluation.summary()["auroc"].items():
        typer.echo(f"{task} (AUROC)")
        for model, words in models.items():
            typer.echo(f"  {model:<20} {words}")
    for warning in evaluation.warnings:
        typer.secho(warning.message, fg=typer.colors.YELLOW)
