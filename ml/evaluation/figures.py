"""Pictures of an evaluation: estimates with their intervals, one below the other. Curves are in ``panels``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from textwrap import wrap

from ml.common.svg import svg, tag, text
from ml.evaluation.results import MEDBERT, Estimate

MODEL_COLOURS = {
    "medbert": "#4338ca",
    "logistic_regression": "#e07b1a",
    "lightgbm": "#0284c7",
    "age_sex": "#8a94a6",
    "gru": "#7c5e3c",
    "oracle": "#0f9d76",
    "champion": "#b4306e",
}
MODEL_NAMES = {
    "medbert": "Med-BERT",
    "logistic_regression": "Logistic regression",
    "lightgbm": "LightGBM",
    "age_sex": "Age and sex",
    "gru": "GRU",
    "oracle": "Oracle",
    "champion": "Champion",
}
LEFT, RIGHT, ROW, GAP, WIDTH = 318, 762, 22, 16, 840
NAME_WIDTH = 24  # characters of a group's name on a line
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Row:
    """One estimate of a picture: its label, its colour, whether it is the one that matters."""

    label: str
    estimate: Estimate
    ink: str
    strong: bool = False


Groups = Sequence[tuple[str, Sequence[Row]]]


def model_name(model: str) -> str:
    """Name of a model for people."""
    return MODEL_NAMES.get(model, model.replace("_", " ").capitalize())


def model_colour(model: str) -> str:
    return MODEL_COLOURS.get(model, "#5c6b7a")


def model_row(model: str, estimate: Estimate, label: str | None = None) -> Row:
    """A row of a model's own name and colour."""
    return Row(label or model_name(model), estimate, model_colour(model), model == MEDBERT)


def dot_whisker(groups: Groups, label: str, reference: float | None = None) -> str:
    """Estimates with intervals, rows in groups; nothing where there is no estimate.

    Args:
        reference: drawn as a line; values are then shown with their sign.
    """
    estimates = [row.estimate for _, rows in groups for row in rows]
    if not estimates:
        return ""
    edges = [e.low for e in estimates] + [e.high for e in estimates] + ([reference] if reference is not None else [])
    step = 0.05 if max(edges) - min(edges) > 0.1 else 0.01
    low, high = floor(min(edges) / step) * step, ceil(max(edges) / step) * step
    heights = [max(ROW * len(rows), 15 * len(wrap(name, NAME_WIDTH))) + GAP for name, rows in groups]
    height = sum(heights) + 34

    def at(value: float) -> float:
        return LEFT + (value - low) / max(high - low, 1e-9) * (RIGHT - LEFT)

    parts, y = _grid(low, high, step, at, height - 28), 14.0
    if reference is not None:
        parts.append(tag("line", x1=at(reference), x2=at(reference), y1=8, y2=height - 28, class_="reference"))
    for (name, rows), tall in zip(groups, heights, strict=True):
        for k, line in enumerate(wrap(name, NAME_WIDTH)):
            parts.append(text(0, y + ROW / 2 + 4 + 15 * k, line, class_="strong"))
        for k, row in enumerate(rows):
            parts += _whisker(row, at, y + ROW * (k + 0.5), "+" if reference is not None else "")
        y += tall
        parts.append(tag("line", x1=0, x2=RIGHT, y1=y - GAP / 2, y2=y - GAP / 2, class_="rule"))
    return svg(WIDTH, height, label, *parts)


def _grid(low: float, high: float, step: float, at: Scale, bottom: float) -> list[str]:
    steps = round((high - low) / step)
    every = max(1, ceil(steps / 8))
    parts = []
    for k in range(0, steps + 1, every):
        value = low + step * k
        parts.append(tag("line", x1=at(value), x2=at(value), y1=8, y2=bottom, class_="grid"))
        parts.append(text(at(value), bottom + 18, f"{value + 0.0:.2f}", text_anchor="middle", class_="tick"))
    return parts


def _whisker(row: Row, at: Scale, y: float, sign: str) -> list[str]:
    e = row.estimate
    return [
        text(LEFT - 15, y + 4, row.label, text_anchor="end", class_="strong" if row.strong else "label"),
        tag("line", x1=at(e.low), x2=at(e.high), y1=y, y2=y, stroke=row.ink, stroke_width=2.5, stroke_linecap="round"),
        tag("circle", cx=at(e.value), cy=y, r=5.0 if row.strong else 4.0, fill=row.ink),
        text(RIGHT + 14, y + 4, format(e.value, f"{sign}.3f"), class_="label"),
    ]
