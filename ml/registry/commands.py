"""`vigil review` decides on the models that wait; `vigil model` shows the one in use."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ml.evaluation.results import Evaluation
    from ml.registry.review import Dossier, Review
    from ml.registry.types import GateResult

review = typer.Typer(no_args_is_help=True, help="Decide on the models that wait.")
model = typer.Typer(no_args_is_help=True, help="The model in use.")


@model.callback()
def _model() -> None:
    """The model in use."""


AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Version = Annotated[int, typer.Argument(min=1, help="model version, see 'vigil review list'")]
Reason = Annotated[str, typer.Option("--reason", help="why; kept with the decision")]
Name = Annotated[str, typer.Option("--as", help="who decides; default the user of this machine")]


def _echo_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _decision_json(found: Review) -> dict[str, Any] | None:
    if found.decision is None:
        return None
    return asdict(found.decision) | {"sentence": found.decision.sentence}


def _review_json(found: Review) -> dict[str, Any]:
    return {"state": found.state, "model": asdict(found.model), "decision": _decision_json(found)}


@review.command("list")
def list_reviews(as_json: AsJson = False) -> None:
    """Every model version and where it stands; what waits for you says so."""
    from ml.registry.review import reviews

    found = reviews()
    if as_json:
        _echo_json([_review_json(one) for one in found])
        return
    if not found:
        typer.echo("No model is registered yet: the retraining has not come that far.")
        return
    rows = [
        (str(one.model.version), one.state, one.model.name, one.decision.sentence if one.decision else "")
        for one in found
    ]
    _print_table("Model versions", ("version", "state", "run", "decision"), rows)


@review.command("show")
def show_review(version: Version, as_json: AsJson = False) -> None:
    """A version's evidence: the comparison with intervals, the gate's checks, the digests, the decision."""
    from ml.registry.review import dossier

    found = dossier(version)
    if as_json:
        gate, evaluation = found.gate.to_json(), found.evaluation.model_dump(mode="json")
        page = str(found.report) if found.report else None
        _echo_json(_review_json(found.review) | {"report": page, "gate": gate, "evaluation": evaluation})
        return
    _print_dossier(found)


@review.command("report")
def show_report(
    version: Version, browse: Annotated[bool, typer.Option("--open", help="open it in the browser, too")] = False
) -> None:
    """Where a version's report lies, one HTML file: who was judged, curves, groups, what it leans on, model card."""
    from ml.registry.review import report

    path = report(version)
    typer.echo(str(path))
    if browse:
        typer.launch(path.as_uri())


@review.command("approve")
def approve(version: Version, reason: Reason, name: Name = "") -> None:
    """Let a version through. The one who asked for the decision cannot give it."""
    from ml.registry.review import approve as record_approval

    decision = record_approval(version, name or getpass.getuser(), reason)
    typer.echo(f"version {version} {decision.sentence}; it must be promoted by {decision.expires_at:%Y-%m-%d}")


@review.command("reject")
def reject(version: Version, reason: Reason, name: Name = "") -> None:
    """Turn a version down."""
    from ml.registry.review import reject as record_rejection

    typer.echo(f"version {version} {record_rejection(version, name or getpass.getuser(), reason).sentence}")


@review.command("rollback")
def rollback(name: Name = "") -> None:
    """Make the previous champion the champion again."""
    from ml.registry.champions import rollback as roll_back

    now = roll_back(name or getpass.getuser())
    typer.echo(f"version {now.version} is the champion again ({now.decision.sentence}); publish its scores next")


@model.command("show")
def show_model(as_json: AsJson = False) -> None:
    """The champion, and whether a person or a policy let it through."""
    from ml.registry.champions import champion

    found = champion()
    if as_json:
        _echo_json(asdict(found) if found else None)
        return
    if found is None:
        typer.echo("There is no champion yet: no model has been let through.")
        return
    typer.echo(f"version {found.version}, trained in run {found.name}")
    typer.echo(found.sentence)
    for label, digest in asdict(found.digests).items():
        typer.echo(f"{label:<9} sha256 {digest}")
    typer.echo(f"files     {found.path}")


def _print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0)
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False, markup=False)


def _print_dossier(found: Dossier) -> None:
    registered = found.review.model
    typer.echo(f"version {registered.version}, run {registered.name}: {found.review.state}")
    typer.echo(f"asked for by {registered.requested_by}")
    for label, digest in asdict(registered.digests).items():
        typer.echo(f"{label:<9} sha256 {digest}")
    typer.echo(f"report    {found.report or 'none was registered'}")
    typer.echo(found.review.decision.sentence if found.review.decision else "no decision yet")
    _print_comparison(found.evaluation)
    _print_gate(found.gate)


def _print_comparison(evaluation: Evaluation) -> None:
    for task, result in sorted(evaluation.tasks.items()):
        rows = []
        for name in (name for name in evaluation.models if name in result.all_days):
            one, pair = result.all_days[name], result.differences.get(f"medbert-minus-{name}")
            shown = (one.auroc, one.auprc, one.brier, one.calibration_slope, pair.auroc if pair else None)
            rows.append((name.replace("_", " "), *(str(estimate) if estimate else "" for estimate in shown)))
        columns = ("model", "AUROC", "AUPRC", "Brier", "calibration slope", "Med-BERT's AUROC minus it")
        _print_table(f"{task}, {result.horizon_days} days, held-out patients", columns, rows)


def _print_gate(gate: GateResult) -> None:
    words = {True: "yes", False: "no", None: "unknown"}
    rows = [(words[c.passed], "blocks" if c.blocking else "shown", c.sentence) for c in gate.checks]
    _print_table(f"Gate: {gate.reason}", ("holds", "", "check"), rows)
