"""`vigil export …`: a snapshot in a format that other tools read."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml.cohorts.meds_export import MedsExport

app = typer.Typer(help="A snapshot in a format that other tools read.", no_args_is_help=True)


@app.callback()
def _export() -> None:
    """A snapshot in a format that other tools read. What is written holds patients: it must stay inside."""


@app.command("meds")
def meds(
    directory: Annotated[Path, typer.Argument(help="Folder to make: absent, empty, or this very export.")],
    as_of: Annotated[
        datetime | None,
        typer.Option("--as-of", formats=["%Y-%m-%d"], help="the snapshot's day; default the newest"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Write a snapshot as a MEDS 0.4 dataset, which ACES, meds_reader and others read.

    data/<shard>.parquet has the events, metadata/ the codes, the patient split and what the dataset is. It is whole or
    absent; the same export again does nothing, and a folder that holds anything else is refused.

    It holds patients' records with the ids of the source: keep it inside the hospital's protected storage. Folders are
    made 0700, files 0600.
    """
    from ml.cohorts.meds_export import PROTECTED, export_meds

    done = export_meds(directory, as_of.date() if as_of else None)
    if as_json:
        typer.echo(json.dumps(asdict(done) | {"notice": PROTECTED}, indent=2, default=str))
        return
    for line in _lines(done):
        typer.echo(line)
    typer.echo(PROTECTED)


def _lines(done: MedsExport) -> list[str]:
    splits = ", ".join(f"{name} {count:,}" for name, count in done.subjects.items())
    heading = "holds this export already" if done.already else "is a MEDS dataset"
    return [
        f"{done.directory} {heading}: the snapshot of {done.as_of}, digest {done.digest[:12]}",
        f"{done.events:,} events in {done.files} files",
        f"{sum(done.subjects.values()):,} subjects: {splits}",
        f"{done.codes:,} codes, {done.described:,} with a description",
    ]
