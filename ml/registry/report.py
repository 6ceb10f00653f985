"""The report of a model: one HTML file that needs no network and no script, for whoever decides on it."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

from ml.cohorts.runs import TrainingRun
from ml.common.code_names import bare_code, names, short_code, token_name
from ml.common.files import write_bytes
from ml.common.html import environment, markup
from ml.evaluation import figures, panels
from ml.evaluation.attribution import Leaning
from ml.evaluation.cohort import SPLITS, standardised_difference
from ml.evaluation.results import MEDBERT, TaskResult
from ml.evaluation.words import auroc_groups, comparisons_of, estimate, headline, learnt, outcome_name
from ml.quality.drift_report import TEMPLATES as DRIFT_TEMPLATES
from ml.quality.drift_report import absent_drift, kinds_of, unjudged
from ml.registry import report_figures, report_words
from ml.registry.report_inputs import ModelReport, gather

TEMPLATES = Path(__file__).parent / "templates"
FOLDED_FROM = 7  # outcomes: as many, and each is folded


def write_report(run: TrainingRun) -> Path:
    """Write ``run.report``; equal inputs give equal bytes.

    A part that is absent becomes a sentence that says why.

    Raises:
        NotFoundError: the run has no evaluation, or no model.
    """
    write_bytes(run.report, render(gather(run)).encode())
    return run.report


def render(report: ModelReport) -> str:
    """The report as HTML."""
    pages = environment(TEMPLATES, DRIFT_TEMPLATES)
    least = report.settings.min_cell
    pages.filters |= {"count": lambda n: f"<{least}" if n is None else f"{n:,}", "estimate": estimate}
    pages.filters |= {"outcome": outcome_name, "code": lambda token: short_code(bare_code(token)), "factor": _factor}
    pages.globals |= {"words": report_words, "headline": headline, "comparisons_of": comparisons_of}
    pages.globals |= {"model_name": figures.model_name, "model_colour": figures.model_colour}
    pages.globals |= {"absent_drift": absent_drift, "unjudged": unjudged, "difference": standardised_difference}
    return pages.get_template("model.html").render(report=report, small=least, **_parts(report))


def _parts(report: ModelReport) -> dict[str, Any]:
    """What the templates need besides the report: pictures and names."""
    evaluation = report.evaluation
    known = _code_names(report)
    drift = report.verdict.drift if report.verdict else None
    return {
        "splits": SPLITS,
        "folded": len(evaluation.tasks) >= FOLDED_FROM,
        "auroc": markup(figures.dot_whisker(auroc_groups(evaluation), "AUROC of every outcome and model")),
        "against": markup(figures.dot_whisker(_differences(report), "AUROC of Med-BERT minus the others'", 0.0)),
        "flow": markup(report_figures.flow(report.cohort.flows, "From everybody known to the rows that are judged"))
        if report.cohort
        else "",
        "pictures": {name: _pictures(report, name, task, known) for name, task in evaluation.tasks.items()},
        "leaning": {name: report_figures.strongest(found) for name, found in _leanings(report).items()},
        "token_name": lambda token: token_name(token, known),
        "drift_kinds": kinds_of(drift, report.settings.min_cell),
        "learnt": learnt(report.finetuning),
    }


def _leanings(report: ModelReport) -> dict[str, tuple[Leaning, ...]]:
    return report.attributions.outcomes if report.attributions else {}


def _code_names(report: ModelReport) -> dict[str, str]:
    shown = {one.token for found in _leanings(report).values() for one in report_figures.strongest(found)}
    return names({bare_code(token) for token in shown}) if shown else {}


def _pictures(report: ModelReport, name: str, task: TaskResult, known: dict[str, str]) -> dict[str, Any]:
    title = outcome_name(name)
    drawn = [
        panel(words, task.all_days)
        for panel, words in (
            (panels.roc, "Ranking: ROC"),
            (panels.precision_recall, "Precision and recall"),
            (panels.calibration, "Calibration"),
            (panels.net_benefit, "Net benefit"),
        )
    ]
    return {
        "curves": [markup(picture) for picture in drawn if picture],
        "subgroups": markup(figures.dot_whisker(_subgroups(report, name, task), f"AUROC by group, {title}")),
        "leanings": markup(report_figures.leanings(title, _leanings(report).get(name, ()), known)),
    }


def _differences(report: ModelReport) -> figures.Groups:
    """Paired differences by outcome, the mean over outcomes first."""
    evaluation = report.evaluation
    sets = [(f"Mean of {len(evaluation.macro.tasks)} outcomes", evaluation.macro.differences)]
    sets += [(outcome_name(name), task.differences) for name, task in evaluation.tasks.items()]
    groups = []
    for title, differences in sets:
        rows = [
            figures.model_row(name.removeprefix(f"{MEDBERT}-minus-"), found.auroc)
            for name, found in differences.items()
            if found.auroc is not None
        ]
        if rows:
            groups.append((title, rows))
    return groups


def _subgroups(report: ModelReport, name: str, task: TaskResult) -> figures.Groups:
    """Med-BERT and the strongest baseline in every group that could be judged."""
    other = report_words.strongest_baseline(report, name)
    groups = []
    for by in ("sex", "age", "site"):
        rows = []
        for group in (group for group in task.subgroups if group.by == by):
            for model in (MEDBERT, other):
                found = group.models.get(model) if model else None
                if model and found is not None and found.auroc is not None:
                    label = group.value if model == MEDBERT else figures.model_name(model)
                    rows.append(figures.model_row(model, found.auroc, label))
        if rows:
            groups.append((by.capitalize(), rows))
    return groups


def _factor(one: Leaning) -> Any:
    """What the odds are multiplied by, the interval in small print below."""
    value, low, high = (f"{exp(number):.2f}" for number in (one.value, one.low, one.high))
    return markup(f"×{value}<small>{low} to {high}</small>")
