"""`vigil sequences …`: vocabulary and token stores."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Vocabulary and token stores.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Vocabulary and token stores."""


@app.command()
def prepare(
    as_of: Annotated[datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day")] = None,
    initial: Annotated[Path | None, typer.Option(help="folder of the model to start from")] = None,
) -> None:
    """Make the vocabulary and the token stores of a run."""
    from ml.cohorts import open_run
    from ml.sequences import prepare as work

    made = work(open_run(as_of.date() if as_of else None), initial)
    typer.echo(f"{made['vocabulary']:,} tokens in the vocabulary, {made['tokens']:,} tokens in the stores")
