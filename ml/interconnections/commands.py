"""``vigil interconnections``: compute by hand what the night computes."""

from __future__ import annotations

from datetime import datetime

import typer

from ml.interconnections.compute import METHOD_NAMES, compute

app = typer.Typer(help="Disease interconnections of a snapshot.", no_args_is_help=True)


@app.callback()
def interconnections() -> None:
    """Disease interconnections of a snapshot."""


@app.command("compute")
def compute_command(
    as_of: datetime | None = typer.Option(None, formats=["%Y-%m-%d"], help="day of the snapshot; default the newest"),
    method: list[str] = typer.Option(list(METHOD_NAMES), help="repeat for several; default all"),
) -> None:
    """Compute and save the matrices of one snapshot."""
    from ml.extraction import load_snapshot, newest_snapshot
    from ml.interconnections.matrix import InterconnectionMatrix

    snapshot = load_snapshot(as_of.date()) if as_of else newest_snapshot()
    for name in method:
        path = compute(name, snapshot)
        matrix = InterconnectionMatrix.load(path)
        about = matrix.provenance
        typer.echo(
            f"{name}: {len(matrix.pairs):,} pairs of {len(matrix.codes):,} codes over {about.patients:,} patients; "
            f"too rare: {about.codes_left_out:,} codes, {about.pairs_left_out:,} pairs ({path})"
        )
