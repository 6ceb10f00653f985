"""`vigil cohorts …`: labels."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

app = typer.Typer(help="Labels of a run.", no_args_is_help=True)
AsOf = Annotated[
    datetime | None, typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day; default newest")
]


@app.callback()
def main() -> None:
    """Labels of a run."""


@app.command()
def labels(as_of: AsOf = None) -> None:
    """Make the labels of a run."""
    from ml.cohorts import make_labels, open_run

    for name, count in make_labels(open_run(as_of.date() if as_of else None)).items():
        typer.echo(f"{name}: {count:,} labels")
