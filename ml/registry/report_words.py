"""Sentences of a model's report, each computed from the figures it speaks of."""

from __future__ import annotations

from ml.evaluation.attribution import PATIENTS as ASKED
from ml.evaluation.figures import model_name
from ml.evaluation.results import (
    CHAMPION,
    LIGHTGBM,
    LOGISTIC_REGRESSION,
    MEDBERT,
    ORACLE,
    Estimate,
    ModelResult,
)
from ml.evaluation.words import joined, lower_name, outcome_name, signed
from ml.registry.report_inputs import ModelReport

SPLIT_NAMES = {"train": "Train", "tuning": "Tuning", "held_out": "Held-out"}
Tile = tuple[str, str, str]
TILES = 5  # in a row
__all__ = [
    "ASKED",
    "SPLIT_NAMES",
    "budget",
    "calibrated",
    "intended_use",
    "limits",
    "standing",
    "strongest_baseline",
    "tiles",
    "versus",
    "widest_subgroup",
]


def standing(report: ModelReport) -> tuple[str, str]:
    """(tone, sentence) on what the gate says; tone is good, wait or bad."""
    gate = report.gate
    if gate is None:
        return "wait", "The gate has not judged this model yet."
    if gate.passed:
        names = joined([outcome_name(task).lower() for task in gate.evaluable])
        return "good", f"The gate lets this model through to review, on {names}. A person decides."
    return "bad", f"The gate refuses this model. {_capital(gate.reason.removeprefix('refused').lstrip(': '))}."


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def tiles(report: ModelReport) -> list[Tile]:
    """(figure, what it is, more about it) of the headline figures."""
    evaluation = report.evaluation
    judged = len(evaluation.tasks) - len(evaluation.not_evaluable)
    ours = evaluation.macro.models.get(MEDBERT)
    others = "the others are no evidence" if evaluation.not_evaluable else "each with events enough"
    found: list[Tile] = [(f"{judged} of {len(evaluation.tasks)}", "outcomes judged", others)]
    if ours and (e := ours.auroc):
        found.insert(0, (f"{e.value:.3f}", "mean AUROC", f"95 % {e.low:.3f} to {e.high:.3f}"))
    for other in (CHAMPION, LIGHTGBM, LOGISTIC_REGRESSION, ORACLE):
        pair = evaluation.macro.differences.get(f"{MEDBERT}-minus-{other}")
        if len(found) < TILES and pair is not None and (e := pair.auroc):
            name = model_name(other).lower() if other != LIGHTGBM else model_name(other)
            found.append((f"{e.value:+.3f}", f"minus {name}", f"95 % {e.low:+.3f} to {e.high:+.3f}"))
    if evaluation.warnings:
        found = [*found[: TILES - 1], (str(len(evaluation.warnings)), "signs of a leak", "the gate refuses")]
    return found


def calibrated(result: ModelResult) -> str:
    """What calibration slope and intercept say of the model."""
    slope, intercept = result.calibration_slope, result.calibration_intercept
    if slope is None or intercept is None:
        return "Calibration cannot be told from these rows."
    spread = _against(slope, 1.0, "too extreme", "too timid")
    level = _against(intercept, 0.0, "too high", "too low")
    numbers = f"slope {slope}, intercept {intercept}"
    if spread is None and level is None:
        return f"Calibration: no departure can be told ({numbers})."
    return f"Calibration: the risks are {' and '.join(w for w in (spread, level) if w)} ({numbers})."


def _against(e: Estimate, ideal: float, below: str, above: str) -> str | None:
    return below if e.high < ideal else above if e.low > ideal else None


def strongest_baseline(report: ModelReport, task: str) -> str | None:
    """The baseline with the highest AUROC on a task."""
    results = report.evaluation.tasks[task].all_days
    scored = [(r.auroc.value, name) for name in (LIGHTGBM, LOGISTIC_REGRESSION) if (r := results.get(name)) and r.auroc]
    return max(scored)[1] if scored else None


def widest_subgroup(report: ModelReport, task: str) -> str | None:
    """The groups of a division that are furthest apart by AUROC; None where fewer than two were judged."""
    found = report.evaluation.tasks[task].subgroups
    apart = []
    for by in ("sex", "age", "site"):
        told = [(g.models[MEDBERT].auroc, g.value) for g in found if g.by == by and MEDBERT in g.models]
        known = sorted((e.value, e.low, e.high, name) for e, name in told if e is not None)
        if len(known) > 1:
            apart.append((known[-1][0] - known[0][0], by, known[0], known[-1]))
    if not apart:
        return None
    _, by, low, high = max(apart)
    overlap = "their intervals overlap" if low[2] >= high[1] else "their intervals do not overlap"
    return f"Furthest apart by {by}: {low[3]} {low[0]:.3f} and {high[3]} {high[0]:.3f}; {overlap}."


def versus(report: ModelReport) -> list[str]:
    """One sentence on the mean difference to each other model."""
    found = []
    for name, pair in report.evaluation.macro.differences.items():
        if pair.auroc is not None:
            other = name.removeprefix(f"{MEDBERT}-minus-")
            verdict = _against(pair.auroc, 0.0, "below", "above") or "cannot be told apart from"
            be = "is " if verdict in ("below", "above") else ""
            name = lower_name(model_name(other))
            found.append(f"On average Med-BERT {be}{verdict} {name}: AUROC {signed(pair.auroc)}.")
    return found


def intended_use(report: ModelReport) -> list[str]:
    """What the model is for, and what not."""
    outcomes = ", ".join(outcome_name(name).lower() for name in report.evaluation.tasks)
    return [
        f"For: ranking the patients of the hospital '{report.settings.hospital}' by the risk of {outcomes}, from what "
        "their records held on a day; for research, and for people who judge the scores.",
        "Not for: diagnosis, treatment or triage of a single patient; another hospital; people under the tasks' least "
        "age or without an event in their look-back, who get no score. It is no medical device, and no clinical use "
        "has been validated.",
    ]


def limits(report: ModelReport) -> list[str]:
    """What the reader must not conclude."""
    settings = report.settings
    found = [
        "Intervals are 95 % percentile bootstrap over patients of one hospital: sampling error, not how the model does "
        "elsewhere or later.",
        "Labels are recorded codes. Who was treated elsewhere, or not coded, counts as without the outcome.",
        "Who died first counts as without the outcome, as for a risk in the presence of death.",
        "What the model leans on is what its risk does when a code is taken out of the record. It is no cause, and "
        "codes that come together share their part.",
        f"No count below {settings.min_cell} is shown; what would follow from others by subtraction is left out, too.",
    ]
    if settings.hospital == "demo":
        found.insert(0, "The patients are invented: a demo hospital generated from a known process.")
    if ORACLE in report.evaluation.models:
        found.append(
            "The oracle knows the process that generated the patients: the distance to it is what better modelling "
            "could still gain."
        )
    return found


def budget(report: ModelReport) -> list[tuple[str, str]]:
    """(stage, what it spent)."""
    found = []
    for name, record in (("Pretraining", report.pretraining), ("Fine-tuning", report.finetuning)):
        if "tokens" in record:
            words = (
                f"{record['tokens']:,} tokens, {record.get('epochs', '?')} epochs, {record.get('seconds', 0):,.0f} s"
            )
            start = " from the champion" if record.get("initial") else ""
            found.append((name, f"{words}, {record.get('processes', 1)} process(es){start}"))
    return found
