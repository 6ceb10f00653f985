"""`vigil show` reads what is published; `vigil publish` moves what is current."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ml.publication.surveillance_rows import Watched

show = typer.Typer(no_args_is_help=True, help="Read what is published.")
publish = typer.Typer(no_args_is_help=True, help="Move what is current.")


@publish.callback()
def _publish() -> None:
    """Move what is current."""


AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _echo_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


def _print_table(title: str, columns: dict[str, str], rows: Sequence[tuple[str, ...]], caption: str = "") -> None:
    """A rich table; ``columns`` maps a heading to left or right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption or None, title_justify="left", caption_justify="left", box=box.SIMPLE)
    for heading, side in columns.items():
        table.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table, highlight=False, markup=False)


@show.command("risk")
def risk(
    outcome: Annotated[str, typer.Option(help="e.g. heart_failure")],
    top: Annotated[int, typer.Option(min=1, help="how many patients")] = 20,
    as_json: AsJson = False,
) -> None:
    """The patients at highest risk, under their pseudonyms, and who let the model through."""
    from ml.publication.reading import top_risks

    header, risks = top_risks(outcome, top)
    if as_json:
        about = asdict(header) | {"decision_sentence": header.decision_sentence}
        _echo_json({"about": about, "risks": [asdict(one) for one in risks]})
        return
    days = risks[0].horizon_days if risks else 0
    rows = [(str(place), one.pseudonym, f"{one.risk:.1%}") for place, one in enumerate(risks, 1)]
    caption = (
        f"{header.in_scope:,} of {header.patients:,} patients are in scope. Model {header.model_name} version "
        f"{header.model_version}, {header.decision_sentence}, scored them on {header.scored_at:%Y-%m-%d %H:%M} UTC. "
        f"Snapshot {header.snapshot_digest[:12]}."
    )
    title = f"Risk of {outcome.replace('_', ' ')} within {days} days after {header.as_of}"
    _print_table(title, {"": "right", "pseudonym": "left", "risk": "right"}, rows, caption)


@show.command("interconnections")
def interconnections(
    code: Annotated[str, typer.Option(help="a diagnosis: E11, or with its vocabulary, ICD10CM//E11")],
    method: Annotated[str | None, typer.Option(help="one method only")] = None,
    top: Annotated[int, typer.Option(min=1, help="how many by method")] = 10,
    as_json: AsJson = False,
) -> None:
    """The strongest interconnections of a diagnosis, each with what its weight means."""
    from ml.publication.reading import pairs_of

    pairs = pairs_of(code, method, top)
    describe = _describer()
    if as_json:
        _echo_json([asdict(p) | {"source": describe(p.source_code), "target": describe(p.target_code)} for p in pairs])
        return
    columns = {"source": "left", "": "left", "target": "left", "weight": "right", "95 % interval": "right"}
    columns |= {"adjusted p": "right", "patients with both": "right"}
    for name in sorted({pair.method for pair in pairs}):
        chosen = [pair for pair in pairs if pair.method == name]
        rows = [
            (
                f"{p.source_code.split('//')[-1]} {describe(p.source_code)}".strip(),
                "→" if p.directed else "–",
                f"{p.target_code.split('//')[-1]} {describe(p.target_code)}".strip(),
                f"{p.weight:.3g}",
                f"{p.ci_low:.3g} to {p.ci_high:.3g}" if p.ci_low is not None and p.ci_high is not None else "",
                f"{p.p_adjusted:.2g}" if p.p_adjusted is not None else "",
                f"{p.n_both:,}",
            )
            for p in chosen
        ]
        _print_table(f"{name} as of {chosen[0].as_of}", columns, rows, chosen[0].weight_meaning)


def _describer() -> Callable[[str], str]:
    """Descriptions of ICD-10-CM codes; empty for what is no such code."""
    import simple_icd_10_cm as icd

    def describe(code: str) -> str:
        vocabulary, _, name = code.partition("//")
        known = vocabulary == "ICD10CM" and icd.is_valid_item(name)
        return str(icd.get_description(name)) if known else ""

    return describe


@show.command("releases")
def releases(as_json: AsJson = False) -> None:
    """Every release, newest first, and which one is current."""
    from ml.publication.releases import all_releases

    found = all_releases()
    if as_json:
        _echo_json([asdict(one) for one in found])
        return
    columns = {"": "left", "table": "left", "as of": "left", "rows": "right", "model": "right"}
    columns |= {"release": "left", "released (UTC)": "left", "run": "left"}
    rows = [
        (
            "current" if one.current else "",
            one.table,
            str(one.as_of),
            f"{one.row_count:,}",
            str(one.model_version or ""),
            one.release_id[:8],
            f"{one.released_at:%Y-%m-%d %H:%M}",
            one.run_id,
        )
        for one in found
    ]
    _print_table("Releases", columns, rows)


@show.command("surveillance")
def surveillance(as_json: AsJson = False) -> None:
    """What happened after published scores, by outcome, month and model version. Exits with 8 where an alert stands:
    in the newest month of an outcome, events or ranking are outside their bounds."""
    from ml.publication.surveillance_rows import OutcomeAlert, all_watched, standing

    rows = all_watched()
    alerts = standing(rows)
    if as_json:
        _echo_json({"rows": [row.as_json() for row in rows], "alerts": [row.sentence() for row in alerts]})
    elif not rows:
        typer.echo("No published score has been followed up yet: none's horizon has passed, or no night has looked.")
    else:
        _print_surveillance(rows)
    if alerts:
        raise OutcomeAlert("; ".join(row.sentence() for row in alerts), "see docs/runbooks/surveillance.md")


def _print_surveillance(rows: Sequence[Watched]) -> None:
    columns = {"outcome": "left", "month": "left", "version": "right", "patients": "right", "events": "right"}
    columns |= {"observed / expected": "right", "AUROC": "right", "at approval": "right", "": "left"}
    shown = [
        (
            row.outcome,
            f"{row.month:%Y-%m}",
            str(row.model_version),
            "not told" if row.n is None else f"{row.n:,}",
            "not told" if row.events is None else f"{row.events:,}",
            str(row.metrics.observed_expected or ""),
            str(row.metrics.auroc or ""),
            f"{row.approved_auroc:.3f}" if row.approved_auroc is not None else "",
            f"alert: {', '.join(row.alerts)}" if row.alerts else row.reason or "",
        )
        for row in rows
    ]
    _print_table("What happened after published scores", columns, shown, "The month's first published day is judged.")


@publish.command("surveillance")
def publish_surveillance(
    again: Annotated[bool, typer.Option("--again", help="every month, after a change of the bounds")] = False,
) -> None:
    """Lay what happened beside the scores whose horizon has passed; the nightly DAG does so, too."""
    from ml.publication.surveillance import watch_outcomes

    found = watch_outcomes(again=again)
    typer.echo(f"{found.judged} judged now, {found.rows} months, versions and outcomes in all")
    for sentence in found.alerts:
        typer.secho(f"alert: {sentence}", fg=typer.colors.YELLOW)


@publish.command("rollback")
def rollback(
    table: Annotated[str, typer.Argument(help="risk_scores or disease_interconnections")],
    name: Annotated[str, typer.Option("--as", help="who does it; default the user of this machine")] = "",
) -> None:
    """Make the release before the current one current again. No row is changed."""
    from ml.publication.releases import rollback as roll_back

    now = roll_back(table, name or getpass.getuser())
    typer.echo(f"{table}: the release of {now.as_of} ({now.row_count:,} rows, {now.release_id[:8]}) is current")
