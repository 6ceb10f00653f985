"""``vigil reconcile``: the log against the source."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml.extraction.reconcile import Reconciliation

DIFFERENT = 8  # exit code of a dry run that found differences


def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="look only; exit code 8 where something differs")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare the event log with the source, and correct the log.

    A night takes what was recorded since the last one. It cannot see rows that the source deleted for good, overwrote
    in silence, or committed late. This command finds them: both sides are counted and hashed by table and cell of
    subjects, cells that differ are compared row by row, and what differs is kept as new facts, which the next night
    takes in, has judged and commits. Nothing that was committed changes. Prints counts, never a row.
    """
    from ml.extraction.reconcile import reconcile as work

    found = work(write=not dry_run)
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"differences": found.differences}, indent=2, default=str))
    else:
        _show(found, dry_run)
    if dry_run and found.differences:
        raise typer.Exit(DIFFERENT)


def _show(found: Reconciliation, dry_run: bool) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, title=f"Log and source, rows recorded by {found.as_of}", title_justify="left")
    table.add_column("table")
    for heading in ("in the source", "in the log", "deleted", "edited", "missed"):
        table.add_column(heading, justify="right")
    for one in found.tables:
        numbers = (one.source_rows, one.log_rows, one.deleted, one.edited, one.missed)
        table.add_row(one.table, *(f"{number:,}" for number in numbers))
    console = Console()
    console.print(table)
    console.print(f"{found.cells[0]:,} cells compared by hash, {found.cells[1]:,} row by row.")
    if not found.differences:
        console.print("Nothing differs.")
    elif dry_run:
        console.print(f"{found.differences:,} rows differ. Run without --dry-run to correct the log.")
    else:
        console.print(
            f"{found.differences:,} corrections wait for the next night, recorded at {found.recorded_at} UTC."
        )
