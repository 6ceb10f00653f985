"""The report's part on what happened after published scores, by month and model version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

from ml.common.svg import svg, tag, text
from ml.evaluation.results import Estimate
from ml.evaluation.words import outcome_name
from ml.publication.surveillance_rows import CALIBRATION, DISCRIMINATION, Watched

GOOD, BAD, BAND = "#4338ca", "#d1433f", "#e9e8fb"
WIDTH, HEIGHT, TOP, BOTTOM = 840, 178, 34, 140
LEFT_PANEL, RIGHT_PANEL, SPAN = 60.0, 500.0, 325.0
MONTHS = 24  # the newest that are drawn
TICKS = (0.125, 0.25, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 4.0, 8.0)
Place = Callable[[float], float]


@dataclass(frozen=True)
class _Panel:
    """Where a panel begins, and how its values become heights."""

    left: float
    months: int
    up: Place

    def across(self, place: int) -> float:
        return self.left + SPAN * (place + 0.5) / self.months


def pictures(rows: Sequence[Watched], bound: float) -> dict[str, str]:
    """A picture by outcome with anything to draw.

    Args:
        rows: of the surveillance, in any order.
        bound: an interval of observed over expected events wholly beyond it, or its inverse, raises an alert.
    """
    found = {}
    for outcome in sorted({row.outcome for row in rows}):
        judged = sorted((row for row in rows if row.outcome == outcome and row.reason is None), key=_order)[-MONTHS:]
        if judged:
            found[outcome] = _picture(outcome_name(outcome), judged, bound)
    return found


def _order(row: Watched) -> tuple[object, int]:
    return row.month, row.model_version


def _picture(title: str, rows: Sequence[Watched], bound: float) -> str:
    label = f"{title}: observed over expected events and AUROC of {len(rows)} months"
    return svg(WIDTH, HEIGHT, label, *_ratios(rows, bound), *_aurocs(rows))


def _ratios(rows: Sequence[Watched], bound: float) -> list[str]:
    """Observed over expected, on a log scale, between its bounds."""
    drawn = [(k, row, e) for k, row in enumerate(rows) if (e := row.metrics.observed_expected)]
    values = [max(v, 0.05) for _, _, e in drawn for v in (e.low, e.high)]
    low, high = min([*values, 1 / bound]) / 1.08, max([*values, bound]) * 1.08

    def up(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (log(max(value, 0.05)) - log(low)) / (log(high) - log(low))

    panel = _Panel(LEFT_PANEL, len(rows), up)
    parts = [text(LEFT_PANEL, 18, "Observed over expected events", class_="strong")]
    parts.append(_box(LEFT_PANEL, up(bound), up(1 / bound)))
    ticks = [tick for tick in TICKS if low <= tick <= high]
    parts += _axis(panel, [(tick, f"{tick:g}") for tick in ticks], 1.0)
    for k, row, e in drawn:
        parts += _mark(panel, k, e, CALIBRATION in row.alerts)
    return parts + _months(panel, rows)


def _aurocs(rows: Sequence[Watched]) -> list[str]:
    """AUROC, and as a short line what it was at approval."""
    drawn = [(k, row, e) for k, row in enumerate(rows) if (e := row.metrics.auroc)]
    values = [v for _, row, e in drawn for v in (e.low, e.high, row.approved_auroc or e.value)] or [0.5, 1.0]
    low, high = max(min(values) - 0.03, 0.0), min(max(values) + 0.03, 1.0)

    def up(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    panel = _Panel(RIGHT_PANEL, len(rows), up)
    parts = [text(RIGHT_PANEL, 18, "AUROC; grey: at approval", class_="strong")]
    steps = [k / 20 for k in range(21) if low <= k / 20 <= high] or [round((low + high) / 2, 2)]
    parts += _axis(panel, [(step, f"{step:.2f}") for step in steps], None)
    half = SPAN / len(rows) / 2
    for k, row, e in drawn:
        if row.approved_auroc is not None:
            x, y = panel.across(k), up(row.approved_auroc)
            wide = min(half, 24.0)
            parts.append(tag("line", x1=x - wide, x2=x + wide, y1=y, y2=y, stroke="#8a94a6", stroke_width=2))
        parts += _mark(panel, k, e, DISCRIMINATION in row.alerts)
    return parts + _months(panel, rows)


def _box(left: float, top: float, bottom: float) -> str:
    return tag("rect", x=left, width=SPAN, y=top, height=bottom - top, fill=BAND)


def _axis(panel: _Panel, ticks: Sequence[tuple[float, str]], reference: float | None) -> list[str]:
    parts = []
    for value, words in ticks:
        y = panel.up(value)
        look = "reference" if value == reference else "grid"
        parts.append(tag("line", x1=panel.left, x2=panel.left + SPAN, y1=y, y2=y, class_=look))
        parts.append(text(panel.left - 6, y + 4, words, text_anchor="end", class_="tick"))
    return parts


def _mark(panel: _Panel, place: int, e: Estimate, alert: bool) -> list[str]:
    x, ink = panel.across(place), BAD if alert else GOOD
    ends = {"y1": panel.up(e.low), "y2": panel.up(e.high)}
    return [
        tag("line", x1=x, x2=x, **ends, stroke=ink, stroke_width=2.5, stroke_linecap="round"),
        tag("circle", cx=x, cy=panel.up(e.value), r=4.5, fill=ink),
    ]


def _months(panel: _Panel, rows: Sequence[Watched]) -> list[str]:
    every = -(-len(rows) // 6)
    parts = []
    for k, row in enumerate(rows):
        if k % every == 0:
            words = f"{row.month:%Y-%m}"
            parts.append(text(panel.across(k), BOTTOM + 16, words, text_anchor="middle", class_="tick"))
            version = f"v{row.model_version}"
            parts.append(text(panel.across(k), BOTTOM + 30, version, text_anchor="middle", class_="tick"))
    return parts
