"""The report of a night: one HTML file that needs no network and no script."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from ml.common.code_names import chapter, names, short_code
from ml.common.files import write_bytes
from ml.common.html import environment, markup
from ml.evaluation import figures, panels
from ml.evaluation.words import auroc_groups, comparisons_of, estimate, headline, outcome_name
from ml.publication import report_surveillance
from ml.publication import report_words as words
from ml.publication.report_inputs import Model, Night, gather
from ml.publication.report_network import network
from ml.publication.surveillance_rows import standing
from ml.quality.drift_report import TEMPLATES as DRIFT_TEMPLATES
from ml.quality.drift_report import absent_drift, kinds_of, unjudged

TEMPLATES = Path(__file__).parent / "templates"


def report_path(as_of: date) -> Path:
    """Where the report of a day lies."""
    from ml.settings import get_settings

    return get_settings().data_dir / "reports" / f"{as_of}.html"


def write_report(as_of: date) -> Path:
    """Write the report of a day from what is on disk and published; equal inputs give equal bytes.

    A part that is absent (no champion, nothing left by disclosure control, Postgres out of reach) becomes a sentence
    that says why.
    """
    path = report_path(as_of)
    write_bytes(path, render(gather(as_of)).encode())
    return path


def render(night: Night) -> str:
    """The report as HTML."""
    pages = environment(TEMPLATES, DRIFT_TEMPLATES)
    pages.filters |= {"count": _count, "estimate": estimate, "outcome": outcome_name, "code": short_code}
    pages.globals |= {"chapter": chapter, "words": words, "headline": headline, "comparisons_of": comparisons_of}
    pages.globals |= {"model_name": figures.model_name, "model_colour": figures.model_colour}
    pages.globals |= {"absent_drift": absent_drift, "unjudged": unjudged}
    return pages.get_template("report.html").render(night=night, **_parts(night))


def _parts(night: Night) -> dict[str, Any]:
    """What the template needs besides the night: pictures, tiles, sentences."""
    codes = {c for m in night.published.methods for e in m.edges for c in (e.source, e.target)}
    known = names(codes) if codes else {}
    return {
        "tiles": tiles(night),
        "code_names": known,
        "pictures": _model_pictures(night.model),
        "networks": {
            m.name: markup(network(m.edges, known, f"Strongest interconnections, {m.name}"))
            for m in night.published.methods
        },
        "extracted": _extracted(night),
        "drift_kinds": kinds_of(night.verdict.drift, night.settings.min_cell) if night.verdict else [],
        "small": night.settings.min_cell,
        "standing": standing(night.published.watched),
        "watched_pictures": _watched_pictures(night),
        "bound": night.settings.surveillance_ratio,
        "margin": night.settings.surveillance_auroc,
    }


def _model_pictures(model: Model | None) -> dict[str, Any]:
    if model is None:
        return {"auroc": None, "roc": [], "calibration": []}
    tasks = model.evaluation.tasks
    roc = [panels.roc(outcome_name(name), task.all_days) for name, task in tasks.items()]
    calibration = [panels.calibration(outcome_name(name), task.all_days) for name, task in tasks.items()]
    return {
        "auroc": markup(figures.dot_whisker(auroc_groups(model.evaluation), "AUROC with 95 % intervals")),
        "roc": [markup(picture) for picture in roc if picture],
        "calibration": [markup(picture) for picture in calibration if picture],
    }


def _watched_pictures(night: Night) -> dict[str, Any]:
    found = report_surveillance.pictures(night.published.watched, night.settings.surveillance_ratio)
    return {outcome: markup(picture) for outcome, picture in found.items()}


def _extracted(night: Night) -> list[tuple[str, int, float]]:
    """(kind, rows, share of the largest) of the partition that covers the night, largest first."""
    rows = night.partition.rows if night.partition else {}
    largest = max(rows.values(), default=0) or 1
    return [(kind, n, n / largest) for kind, n in sorted(rows.items(), key=lambda item: (-item[1], item[0]))]


def tiles(night: Night) -> list[tuple[str, str, str]]:
    """(figure, what it is, more about it) of the headline figures."""
    published = night.published
    rows = {r.table: r for r in published.releases if r.as_of == night.as_of and r.current}
    found = [("–", "events extracted", "no partition covers this day")]
    if night.partition is not None:
        base = night.partition.recorded_from is None
        note = "base load" if base else f"recorded {night.partition.recorded_from} to {night.partition.recorded_to}"
        found = [(f"{night.partition.total:,}", "events extracted", note)]
    if night.verdict is not None:
        warned, blocked = len(night.verdict.warnings), len(night.verdict.blocks)
        note = f"{len(night.verdict.results)} expectations, {warned} warn, {blocked} block"
        found.append(("passed" if night.verdict.passed else "blocked", "quality", note))
    if night.model is not None and (mean := night.model.evaluation.macro.models.get("medbert")) and mean.auroc:
        found.append(
            (f"{mean.auroc.value:.3f}", "mean AUROC of Med-BERT", f"95 % {mean.auroc.low:.3f}–{mean.auroc.high:.3f}")
        )
    for table, name in (("risk_scores", "risk scores"), ("disease_interconnections", "interconnections")):
        release = rows.get(table)
        found.append((f"{release.rows:,}" if release else "–", name, "published" if release else "none of this night"))
    return found


def _count(value: int | None) -> str:
    return "<11" if value is None else f"{value:,}"
