"""``vigil load``: bring CSV exports and MEDS datasets into Postgres."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml.sources.loading.load import Loader, LoadReport

app = typer.Typer(no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="Folder of .csv or .csv.gz files.")]
Dataset = Annotated[Path, typer.Argument(help="Folder of the dataset: data/**/*.parquet, metadata/codes.parquet.")]
Replace = Annotated[bool, typer.Option("--replace", help="Remove the records that are there first.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@app.command("omop")
def omop(directory: Directory, replace: Replace = False, as_json: Json = False) -> None:
    """An OMOP CDM 5.3 or 5.4 export."""
    from ml.sources.loading.omop import LOADER

    _run(LOADER, directory, replace, as_json)


@app.command("mimic-iv")
def mimic_iv(directory: Directory, replace: Replace = False, as_json: Json = False) -> None:
    """MIMIC-IV's hosp files; each patient's dates are shifted to the years they are really from."""
    from ml.sources.loading.mimic_iv import LOADER

    _run(LOADER, directory, replace, as_json)


@app.command("diabetes130")
def diabetes130(directory: Directory, replace: Replace = False, as_json: Json = False) -> None:
    """Diabetes in 130 US hospitals (UCI 296), written as OMOP; its dates are made from the order of encounters."""
    from ml.sources.loading.diabetes130 import LOADER

    _run(LOADER, directory, replace, as_json)


@app.command("meds")
def meds(
    directory: Dataset,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="THEIRS=OURS", help="Read a column of another name, such as pid=subject_id."),
    ] = None,
    shift_days: Annotated[
        int, typer.Option(help="Added to every time, for datasets whose dates lie in the future: -73049 is 200 years.")
    ] = 0,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """A MEDS dataset (0.3 or newer), one event a row; read it with VIGIL_SOURCE=meds.

    Columns of other names are found where Vigil knows them (patient_id, timestamp, value, hadm_id, ...), codes are
    written in Vigil's form where theirs is known, and the report says both. MEDS does not say when a row became known:
    an event is taken as known at the end of its day. An export of Vigil (vigil export meds) comes back as it was.
    """
    from ml.common.errors import ConfigError
    from ml.sources.loading.meds import loader

    pairs = [pair.partition("=") for pair in column or []]
    if not all(theirs and ours for theirs, _, ours in pairs):
        raise ConfigError("--column is not THEIRS=OURS", "write for example --column pid=subject_id")
    _run(loader({theirs: ours for theirs, _, ours in pairs}, shift_days), directory, replace, as_json)


def _run(loader: Loader, directory: Path, replace: bool, as_json: bool) -> None:
    from ml.sources.loading.load import load

    report = load(loader, directory, replace=replace)
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2))
    else:
        show_report(report)


def show_report(report: LoadReport) -> None:
    """Print what a load did, for a person."""
    from rich.console import Console
    from rich.table import Table

    table = Table("file", "read", "loaded", "set aside", "why", title=f"vigil load {report.loader}")
    for file in report.files:
        why = "; ".join(f"{reason}: {count:,}" for reason, count in file["rejected"].items())
        set_aside = sum(file["rejected"].values())
        table.add_row(file["file"], f"{file['read']:,}", f"{file['loaded']:,}", f"{set_aside:,}", why)
    console = Console()
    if report.already:
        console.print("These very files are loaded already; nothing was done (--replace loads them anew).")
    console.print(table)
    for note in report.notes:
        console.print(f"· {note}", markup=False)
    if any(file["rejected"] for file in report.files):
        console.print("· rows set aside are in the table rejected_rows, with file, line and reason", markup=False)
