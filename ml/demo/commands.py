"""`vigil demo …`: the demo hospital."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

import typer

app = typer.Typer(help="The demo hospital, whose truth is known.", no_args_is_help=True)
truth = typer.Typer(help="What is true about it, and never in the EHR.", no_args_is_help=True)
app.add_typer(truth, name="truth")
AsJson = Annotated[bool, typer.Option("--json", help="machine-readable")]


@app.command()
def load(
    patients: Annotated[int | None, typer.Option(help="default VIGIL_DEMO_PATIENTS", min=1)] = None,
    preset: Annotated[Literal["general", "pancreas"] | None, typer.Option(help="default VIGIL_DEMO_PRESET")] = None,
    seed: Annotated[int | None, typer.Option(help="default VIGIL_SEED", min=0)] = None,
    replace: Annotated[bool, typer.Option("--replace", help="drop what the EHR schema holds")] = False,
) -> None:
    """Generate the hospital and load it into the EHR database; nothing happens if it is there."""
    from ml.demo.load import load_demo, status

    made = load_demo(patients, preset, seed, replace=replace)
    now = status()
    words = "loaded" if made else "already loaded"
    typer.echo(f"demo hospital {words}: {now.patients:,} patients, {sum(now.rows.values()):,} rows, today {now.today}")


@app.command()
def advance(
    to: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="the new today")],
) -> None:
    """Let nights pass: rows recorded by the end of the day come into the EHR."""
    from ml.demo.load import advance as go

    typer.echo(f"{go(to.date()):,} rows came in; today is {to.date()}")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Today, the end of the calendar, patients and rows."""
    from dataclasses import asdict

    from ml.demo.load import status as read

    now = read()
    if as_json:
        typer.echo(json.dumps(asdict(now), default=str))
        return
    typer.echo(
        f"today     {now.today}\nend       {now.end}\npatients  {now.patients:,} ({now.preset}, seed {now.seed})"
    )
    for table, count in now.rows.items():
        typer.echo(f"{count:>11,}  {table}")
    typer.echo(f"{now.held_back:>11,}  rows held back")


@app.command()
def describe(as_json: AsJson = False) -> None:
    """Measure incidences and how well the truth and age and sex tell the outcomes."""
    from dataclasses import asdict

    from ml.demo.describe import as_lines, visible_effects
    from ml.demo.describe import describe as measure

    outcomes, seen = measure(), visible_effects()
    if as_json:
        typer.echo(json.dumps({"outcomes": [asdict(o) for o in outcomes], "effects": asdict(seen)}))
        return
    typer.echo("\n".join(as_lines(outcomes)))
    typer.echo(f"planted disease effects: {seen.effects}; common enough to be seen: {seen.common}")
    typer.echo(f"patients with pancreatic cancer: {seen.patients.get('C25', 0):,}")


@truth.command()
def effects(as_json: AsJson = False) -> None:
    """The planted directed effects."""
    from dataclasses import asdict

    from ml.demo.process import load_process

    planted = load_process().effects
    if as_json:
        typer.echo(json.dumps([asdict(e) for e in planted]))
        return
    for e in planted:
        typer.echo(f"{e.kind:<9} {e.source:<4} → {e.target:<5} {e.hazard_ratio:>6g}  {e.source_of_value}")
