"""`vigil train …`: the stages of training, each in a process of its own."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml.training.launch import Stage

app = typer.Typer(help="Pretrain and fine-tune.", no_args_is_help=True)
AsOf = Annotated[
    datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day; default newest")
]
Initial = Annotated[Path | None, typer.Option(help="folder of the model to start from")]


@app.command()
def pretrain(as_of: AsOf = None, initial: Initial = None) -> None:
    """Masked language modelling on train-split patients."""
    _launch("pretrain", as_of, initial)


@app.command()
def finetune(as_of: AsOf = None) -> None:
    """Fine-tune on the labels and write predictions."""
    _launch("finetune", as_of, None)


@app.command()
def recurrent(as_of: AsOf = None) -> None:
    """Train the recurrent baseline (preset gru) on the same rows; `vigil evaluate run` then judges it, too."""
    _launch("recurrent", as_of, None)


@app.command()
def search(
    trials: Annotated[int, typer.Option(min=1, help="in all, with those already made")],
    as_of: AsOf = None,
    initial: Initial = None,
) -> None:
    """Search hyper-parameters; the run's training then takes the best."""
    from ml.cohorts import open_run
    from ml.training import launch_search

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = launch_search(open_run(as_of.date() if as_of else None), trials, initial)
    values = ", ".join(f"{key} {value:.3g}" for key, value in found["values"].items())
    typer.echo(f"search: best of {found['trials']}: {found['score']:.4f} with {values}")


@app.command()
def presets() -> None:
    """List the presets."""
    from ml.models.presets import preset_names

    typer.echo("\n".join(preset_names()))


def _launch(stage: Stage, as_of: datetime | None, initial: Path | None) -> None:
    from ml.cohorts import open_run
    from ml.training import launch

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    done = launch(stage, open_run(as_of.date() if as_of else None), initial)
    typer.echo(f"{stage}: {done['tokens']:,} tokens in {done['seconds']:.0f} s, loss {done['final_loss']:.4f}")
