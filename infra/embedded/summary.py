"""What the night did, for a terminal: the report's facts, in a screenful."""

from __future__ import annotations

from datetime import date

from rich import box
from rich.console import Console
from rich.table import Table

from ml.evaluation.figures import model_name
from ml.evaluation.results import AGE_SEX, CHAMPION, LOGISTIC_REGRESSION, MEDBERT, Evaluation, ModelResult
from ml.evaluation.words import headline, outcome_name
from ml.publication import report_words as words
from ml.publication.report import report_path
from ml.publication.report_inputs import Night, gather
from ml.settings import get_settings


def show_summary(as_of: date, console: Console) -> None:
    """Print what was extracted, judged and published, and where to look."""
    night = gather(as_of)
    console.print()
    for title, lines in (
        ("Records", _records(night)),
        ("Quality", _quality(night)),
        ("Model", _standing(night)),
    ):
        _section(console, title, lines)
    if night.model is not None:
        console.print(_comparison(night.model.evaluation))
    _section(console, "Published", _published(night))
    _section(console, "Look", _places(as_of))


def _section(console: Console, title: str, lines: list[str]) -> None:
    for number, line in enumerate(lines):
        console.print(f"[bold]{title if not number else '':<10}[/] {line}", highlight=False)


def _records(night: Night) -> list[str]:
    if night.partition is None or night.snapshot is None:
        return ["no snapshot of this day was committed"]
    partition, snapshot = night.partition, night.snapshot
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in partition.rows.items() if count)
    since = f"since {partition.recorded_from}" if partition.recorded_from else "from the beginning"
    extracted = f"{partition.total:,} events extracted, {since}" if partition.total else "nothing was recorded"
    total = sum(snapshot.rows.values())
    return [
        f"{extracted}" + (f" ({kinds})" if kinds else ""),
        f"the snapshot of {snapshot.as_of} holds {total:,} events of {snapshot.subjects:,} people, "
        f"digest {snapshot.digest[:12]}",
    ]


def _quality(night: Night) -> list[str]:
    verdict = night.verdict
    if verdict is None:
        return ["not judged"]
    if verdict.empty:
        return ["nothing to judge: an empty night is no fault"]
    lines = [
        f"{'[green]passed[/]' if verdict.passed else '[red]blocked[/]'}: {len(verdict.results)} expectations, "
        f"{len(verdict.warnings)} warnings, {verdict.quarantined:,} rows in quarantine"
    ]
    return lines + [f"[yellow]warning[/] {r.expectation} ({r.subject}): {r.remedy}" for r in verdict.warnings[:5]]


def _standing(night: Night) -> list[str]:
    if night.model is None:
        return [words.absent_model(night)]
    tone, sentence = words.standing(night.model)
    colour = {"good": "green", "policy": "yellow", "wait": "yellow", "bad": "red"}[tone]
    evaluation = night.model.evaluation
    others = [name for name in (AGE_SEX, LOGISTIC_REGRESSION, CHAMPION) if name in evaluation.models]
    learning = words.learning(night.model)
    lines = [f"[{colour}]{sentence}[/]", *(headline(evaluation, other) for other in others)]
    return [*lines, learning] if learning else lines


def _comparison(evaluation: Evaluation) -> Table:
    """AUROC by outcome and model, with intervals."""
    table = Table(box=box.SIMPLE, title="AUROC on held-out patients, 95 % interval", title_justify="left")
    table.add_column("outcome")
    table.add_column("events", justify="right")
    for name in evaluation.models:
        table.add_column(model_name(name))
    for task, result in evaluation.tasks.items():
        first = next(iter(result.all_days.values()))
        cells = [_auroc(result.all_days.get(name), bold=name == MEDBERT) for name in evaluation.models]
        table.add_row(outcome_name(task), f"{first.events:,}", *cells)
    return table


def _auroc(result: ModelResult | None, *, bold: bool) -> str:
    if result is None or result.auroc is None:
        return "[dim]too few events[/]"
    return f"[bold]{result.auroc}[/]" if bold else str(result.auroc)


def _published(night: Night) -> list[str]:
    own = [release for release in night.published.releases if release.as_of == night.as_of]
    if night.published.problem:
        return [night.published.problem]
    if not own:
        return ["nothing of this day"]
    return [
        f"{release.rows:,} rows in published.{release.table}"
        + (f" by version {release.model_version}" if release.model_version else "")
        + (", current" if release.current else ", not current")
        + (" [yellow](disclosure control left nothing)[/]" if not release.rows else "")
        for release in own
    ]


def _places(as_of: date) -> list[str]:
    from infra.embedded import stack

    settings = get_settings()
    status = stack.status(settings.home)
    return [
        f"report   {report_path(as_of)}",
        f"Airflow  {status.url('airflow-api-server')}",
        f"MLflow   {status.url('mlflow')}",
        "vigil show risk --outcome " + settings.tasks[0] + " --top 20",
        "vigil show interconnections --code " + ("428" if settings.hospital == "diabetes130" else "E11"),
        "vigil review list",
    ]
