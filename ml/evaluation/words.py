"""Sentences about an evaluation, each computed from the figures it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ml.common.html import markup
from ml.evaluation.figures import Groups, model_name, model_row
from ml.evaluation.results import (
    CHAMPION,
    LIGHTGBM,
    LOGISTIC_REGRESSION,
    MEDBERT,
    ORACLE,
    Estimate,
    Evaluation,
    TaskResult,
)


def outcome_name(task: str) -> str:
    """``type_2_diabetes`` → ``Type 2 diabetes``."""
    return task.replace("_", " ").capitalize()


def estimate(value: Estimate | None, sign: str = "") -> Any:
    """For a cell of a table: the value, its interval in small print below."""
    if value is None:
        return "–"
    shown = [format(number, f"{sign}.3f") for number in (value.value, value.low, value.high)]
    return markup(f"{shown[0]}<small>{shown[1]} to {shown[2]}</small>")


def signed(e: Estimate) -> str:
    """A difference with its interval, sign shown."""
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def comparison(task: TaskResult, other: str) -> str | None:
    """Who is ahead by AUROC, from the paired interval; None where it cannot be told."""
    pair = task.differences.get(f"medbert-minus-{other}")
    if pair is None or pair.auroc is None:
        return None
    e, name = pair.auroc, model_name(other)
    if other == "oracle":
        return f"The oracle is {'above' if e.high < 0 else 'not above'} Med-BERT, by the difference {signed(e)}."
    if e.low > 0:
        return f"Med-BERT is above {lower_name(name)} by AUROC {signed(e)}."
    if e.high < 0:
        return f"{name} wins: Med-BERT is below it by AUROC {signed(e)}."
    return f"Med-BERT and {lower_name(name)} cannot be told apart by AUROC, {signed(e)}."


def lower_name(name: str) -> str:
    """A model's name inside a sentence."""
    if name in (model_name(LIGHTGBM), model_name(MEDBERT)):
        return name
    return f"the {name.lower()}" if name in (model_name(CHAMPION), model_name(ORACLE)) else name.lower()


def comparisons_of(task: TaskResult) -> list[str]:
    """One sentence per other model."""
    others = [name.removeprefix("medbert-minus-") for name in task.differences]
    return [words for other in others if (words := comparison(task, other)) is not None]


def headline(evaluation: Evaluation, other: str = LOGISTIC_REGRESSION) -> str:
    """Med-BERT against another model over all outcomes, in one sentence."""
    name = lower_name(model_name(other))
    ahead: list[str] = []
    behind: list[str] = []
    open_: list[str] = []
    for task_name, task in evaluation.tasks.items():
        pair = task.differences.get(f"{MEDBERT}-minus-{other}")
        if pair is None or pair.auroc is None:
            continue
        place = ahead if pair.auroc.low > 0 else behind if pair.auroc.high < 0 else open_
        place.append(outcome_name(task_name).lower())
    parts = []
    if ahead:
        parts.append(f"Med-BERT is above {name} for {joined(ahead)}")
    if behind:
        parts.append(f"{name} wins for {joined(behind)}")
    if open_:
        parts.append(f"Med-BERT and {name} cannot be told apart for {joined(open_)}")
    words = "; ".join(parts)
    return words[:1].upper() + words[1:] + "." if words else "No outcome has enough events to compare the models."


def joined(words: list[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def auroc_groups(evaluation: Evaluation) -> Groups:
    """Rows of the picture of every outcome's AUROCs."""
    groups = []
    for name, task in evaluation.tasks.items():
        results = [(model, task.all_days[model].auroc) for model in evaluation.models if model in task.all_days]
        rows = [model_row(model, auroc) for model, auroc in results if auroc is not None]
        if rows:
            groups.append((outcome_name(name), rows))
    return groups


def learnt(record: Mapping[str, Any]) -> str | None:
    """What fine-tuning the encoder added to where it began, on the tuning split; None where it is not recorded.

    Args:
        record: of the fine-tuning, content of its training.json.
    """
    looks = [look["macro_auroc"] for look in record.get("tuning", []) if look["macro_auroc"] is not None]
    if len(looks) < 2:
        return None
    began = "the champion's weights" if record.get("initial") else "its linear path on the codes alone"
    return (
        f"On the tuning split the mean AUROC was {looks[0]:.4f} with {began} and {max(looks[1:]):.4f} "
        "after the encoder was fine-tuned."
    )
