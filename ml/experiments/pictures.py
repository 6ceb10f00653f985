"""Pictures of results as SVG. Heavy import (matplotlib): only an experiment's own work imports this module."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from ml.evaluation.results import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#4338ca", "#e07b1a", "#0f9d76", "#b4306e", "#8a94a6", "#a16207", "#0e7490")
STYLE = {
    "svg.hashsalt": "vigil",
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Estimate]]]],
    levels: Mapping[str, Mapping[str, float]],
    all_at: float | None,
) -> bytes:
    """AUROC by labelled patients, a panel per outcome, a line per model.

    Args:
        panels: by title, by model, points (labelled patients, AUROC) in rising order.
        levels: by title, by name, a horizontal line.
        all_at: where on the axis the points of all labelled patients stand, None without them.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * len(panels), 4.0), layout="constrained")
        for place, (title, models) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), place)
            spread = len(models)
            for number, (model, points) in enumerate(models.items()):
                shift = 1.0 + 0.025 * (number - (spread - 1) / 2)  # bars beside one another, not on top
                _line(axes, [(x * shift, estimate) for x, estimate in points], COLOURS[number % len(COLOURS)], model)
            for number, (name, level) in enumerate(levels.get(title, {}).items()):
                axes.axhline(level, color="#6b7280", linestyle=("--", ":")[number % 2], linewidth=1, label=name)
            axes.set_xscale("log")
            ticks = sorted({x for points in models.values() for x, _ in points})
            axes.set_xticks(ticks, ["all" if x == all_at else f"{x:,.0f}" for x in ticks], minor=False)
            axes.minorticks_off()
            axes.set(title=title, xlabel="labelled patients", ylabel="AUROC, held-out patients")
            axes.legend(fontsize=8)
        return _svg(figure)


def rungs(panels: Mapping[str, Sequence[tuple[str, Estimate]]], marks: Mapping[str, float]) -> bytes:
    """One dot with its interval per model, top to bottom, a panel per measure.

    Args:
        marks: name and value of vertical lines in every panel.
    """
    most = max(len(rows) for rows in panels.values())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.0 * len(panels), 0.30 * most + 1.4), layout="constrained")
        for place, (title, rows) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), place)
            for y, (_, estimate) in enumerate(rows):
                axes.plot([estimate.low, estimate.high], [y, y], color=COLOURS[0], linewidth=1.2)
                axes.plot([estimate.value], [y], "o", color=COLOURS[0], markersize=4)
            for number, (name, value) in enumerate(marks.items()):
                axes.axvline(value, color="#6b7280", linestyle=("--", ":")[number % 2], linewidth=1, label=name)
            axes.set_yticks(range(len(rows)), [name for name, _ in rows])
            axes.invert_yaxis()
            axes.set(title=title, xlabel="macro AUROC")
            if marks:
                axes.legend(fontsize=8)
        return _svg(figure)


def _line(axes: Axes, points: Sequence[tuple[float, Estimate]], colour: str, name: str) -> None:
    x = [place for place, _ in points]
    y = [estimate.value for _, estimate in points]
    below = [max(estimate.value - estimate.low, 0.0) for _, estimate in points]
    above = [max(estimate.high - estimate.value, 0.0) for _, estimate in points]
    bars = [[0.0 if b != b else b for b in below], [0.0 if a != a else a for a in above]]
    axes.errorbar(x, y, yerr=bars, color=colour, marker="o", markersize=3.5, linewidth=1.4, capsize=2, label=name)


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
