"""``vigil experiment …``: the papers' experiments on demo hospitals of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ml.experiments.run import Name

app = typer.Typer(help="The papers' experiments, on demo hospitals of their own.", no_args_is_help=True)
ScaleOption = Annotated[
    Literal["tiny", "small", "full"],
    typer.Option(help="tiny: seconds, says nothing; small: two cores; full: a GPU, not run yet"),
]
PageOption = Annotated[
    Path | None, typer.Option(help="a page whose marked part takes the results, the figure beside it")
]


ShowOption = Annotated[bool, typer.Option("--show", help="tables of what is finished; nothing is trained")]


@app.command("core-behrt-ladder")
def core_behrt_ladder(scale: ScaleOption = "small", page: PageOption = None, show: ShowOption = False) -> None:
    """From BEHRT to CORE-BEHRT step by step, over all evaluable outcomes, five folds."""
    _run("core-behrt-ladder", scale, page, show)


@app.command("next-visit-head")
def next_visit_head(scale: ScaleOption = "small", page: PageOption = None, show: ShowOption = False) -> None:
    """Pancreatic cancer from few labelled patients: a binary head, or the next visit's code."""
    _run("next-visit-head", scale, page, show)


@app.command("pretraining-gain")
def pretraining_gain(scale: ScaleOption = "small", page: PageOption = None, show: ShowOption = False) -> None:
    """With and without pretraining, by the number of labelled patients."""
    _run("pretraining-gain", scale, page, show)


@app.command("presets")
def presets(scale: ScaleOption = "small", page: PageOption = None, show: ShowOption = False) -> None:
    """The presets of models side by side after equal compute."""
    _run("presets", scale, page, show)


@app.command("oracle-gap")
def oracle_gap(scale: ScaleOption = "small", page: PageOption = None, show: ShowOption = False) -> None:
    """How far the best model is from the oracle, which reads the same record and knows the process."""
    _run("oracle-gap", scale, page, show)


def _run(name: Name, scale: Literal["tiny", "small", "full"], page: Path | None, show: bool) -> None:
    from ml.experiments.run import run

    found, folder = run(name, scale, typer.echo, train=not show)
    for table in found.tables:
        typer.echo(f"\n{table.plain()}")
    if page is not None:
        found.put_into(page)
    typer.echo(f"\n{folder}: results.json, CSV tables, figure.svg, results.md")
