"""The report's pictures: small inline SVG, made by hand, without script or network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, cos, degrees, floor, hypot, log, pi, sin

from ml.evaluation.results import Estimate, ModelResult
from ml.publication.report_icd import chapter, chapter_rank, colour, short_code

MODEL_COLOURS = {
    "medbert": "#4338ca",
    "logistic_regression": "#e07b1a",
    "lightgbm": "#a16207",
    "age_sex": "#8a94a6",
    "oracle": "#0f9d76",
    "champion": "#b4306e",
}
MODEL_NAMES = {
    "medbert": "Med-BERT",
    "logistic_regression": "Logistic regression",
    "lightgbm": "LightGBM",
    "age_sex": "Age and sex",
    "oracle": "Oracle",
    "champion": "Champion",
}
Points = Sequence[tuple[float, float]]
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Edge:
    """A published pair of diseases; ``low`` and ``high`` where the method gives an interval."""

    source: str
    target: str
    weight: float
    low: float | None
    high: float | None
    n_both: int
    directed: bool
    p_adjusted: float | None = None


def model_name(model: str) -> str:
    """Name of a model for people."""
    return MODEL_NAMES.get(model, model.replace("_", " ").capitalize())


def model_colour(model: str) -> str:
    return MODEL_COLOURS.get(model, "#5c6b7a")


def tag(name: str, content: str = "", /, **attributes: object) -> str:
    """One element; ``content`` is markup, attributes are escaped, ``_`` in their names becomes ``-``."""
    rounded = {
        k.rstrip("_").replace("_", "-"): f"{v:.5g}" if isinstance(v, float) else v for k, v in attributes.items()
    }
    written = "".join(f' {key}="{escape(str(value))}"' for key, value in rounded.items())
    return f"<{name}{written}>{content}</{name}>"


def text(x: float, y: float, words: str, **attributes: object) -> str:
    """Words at a place; escaped."""
    return tag("text", escape(words), **{"x": float(x), "y": float(y), **attributes})


def svg(width: int, height: int, label: str, *parts: str) -> str:
    """A picture that scales with its column; ``label`` is read to those who cannot see it."""
    return tag("svg", "".join(parts), viewBox=f"0 0 {width} {height}", role="img", aria_label=label)


def polyline(points: Points, **attributes: object) -> str:
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), fill="none", **attributes)


def dot_whisker(groups: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]], label: str) -> str:
    """Estimates with intervals, one row per model, rows grouped by outcome."""
    estimates = [e for _, rows in groups for _, e in rows]
    if not estimates:
        return ""
    low, high = floor(min(e.low for e in estimates) * 20) / 20, ceil(max(e.high for e in estimates) * 20) / 20
    left, right, row, gap = 270, 770, 22, 16
    height = sum(row * len(rows) + gap for _, rows in groups) + 34

    def at(value: float) -> float:
        return left + (value - low) / max(high - low, 1e-9) * (right - left)

    parts, y = _grid(low, high, at, height - 28), 14.0
    for group, rows in groups:
        parts.append(text(0, y + row / 2 + 4, group, class_="strong"))
        for model, e in rows:
            parts += _whisker(model, e, at, y + row / 2)
            y += row
        y += gap
        parts.append(tag("line", x1=0, x2=right, y1=y - gap / 2, y2=y - gap / 2, class_="rule"))
    return svg(840, height, label, *parts)


def _grid(low: float, high: float, at: Scale, bottom: float) -> list[str]:
    steps = round((high - low) / 0.05)
    every = max(1, ceil(steps / 8))
    parts = []
    for k in range(0, steps + 1, every):
        value = low + 0.05 * k
        parts.append(tag("line", x1=at(value), x2=at(value), y1=8, y2=bottom, class_="grid"))
        parts.append(text(at(value), bottom + 18, f"{value:.2f}", text_anchor="middle", class_="tick"))
    return parts


def _whisker(model: str, e: Estimate, at: Scale, y: float) -> list[str]:
    ink = model_colour(model)
    bold = "strong" if model == "medbert" else "label"
    return [
        text(255, y + 4, model_name(model), text_anchor="end", class_=bold),
        tag("line", x1=at(e.low), x2=at(e.high), y1=y, y2=y, stroke=ink, stroke_width=2.5, stroke_linecap="round"),
        tag("circle", cx=at(e.value), cy=y, r=5.0 if model == "medbert" else 4.0, fill=ink),
        text(784, y + 4, f"{e.value:.3f}", class_="label"),
    ]


def _frame(title: str, x_name: str, y_name: str, top: float) -> list[str]:
    """Axes of a square panel; the plot lies in x 46…296, y 34…284, both from 0 to ``top``."""
    parts = [text(46, 20, title, class_="strong")]
    for k in range(5):
        share = k / 4
        x, y, value = 46 + 250 * share, 284 - 250 * share, top * share
        shown = f"{value:.0%}" if top >= 0.2 else f"{value:.1%}"
        parts += [
            tag("line", x1=x, x2=x, y1=34, y2=284, class_="grid"),
            tag("line", x1=46, x2=296, y1=y, y2=y, class_="grid"),
            text(x, 299, shown, text_anchor="middle", class_="tick"),
            text(41, y + 4, shown, text_anchor="end", class_="tick"),
        ]
    parts.append(tag("line", x1=46, y1=284, x2=296, y2=34, class_="diagonal"))
    parts.append(text(171, 316, x_name, text_anchor="middle", class_="tick"))
    parts.append(text(0, 0, y_name, text_anchor="middle", class_="tick", transform="translate(9 159) rotate(-90)"))
    return parts


def _ordered(models: dict[str, ModelResult]) -> list[tuple[str, ModelResult]]:
    """Med-BERT last, so that it is drawn on top."""
    return sorted(models.items(), key=lambda item: (item[0] == "medbert", item[0]))


def roc(title: str, models: dict[str, ModelResult]) -> str:
    """ROC curves of one outcome, or nothing where no model has one."""
    if not any(result.roc for result in models.values()):
        return ""
    parts = _frame(title, "false positive rate", "true positive rate", 1.0)
    for model, result in _ordered(models):
        points = [(46 + 250 * x, 284 - 250 * y) for x, y in result.roc]
        width = 2.4 if model == "medbert" else 1.6
        dash = {"stroke_dasharray": "5 3"} if model == "oracle" else {}
        parts.append(polyline(points, stroke=model_colour(model), stroke_width=width, stroke_linejoin="round", **dash))
    drawn = [(m, r.auroc) for m, r in reversed(_ordered(models)) if r.auroc is not None and r.roc]
    for k, (model, auroc) in enumerate(drawn):
        y = 276 - 14 * (len(drawn) - 1 - k)
        parts.append(
            text(290, y, f"{model_name(model)} {auroc.value:.3f}", text_anchor="end", fill=model_colour(model))
        )
    return svg(310, 324, f"ROC curves, {title}", *parts)


def calibration(title: str, models: dict[str, ModelResult]) -> str:
    """Observed share against mean predicted risk in groups of equal size, or nothing."""
    points = [p for result in models.values() for p in result.calibration]
    if not points:
        return ""
    top = min(1.0, _round_up(max(max(x, y) for x, y, _ in points)))
    parts = _frame(title, "predicted risk", "observed share", top)
    for model, result in _ordered(models):
        ink = model_colour(model)
        drawn = [(46 + 250 * x / top, 284 - 250 * y / top) for x, y, _ in result.calibration]
        dash = {"stroke_dasharray": "5 3"} if model == "oracle" else {}
        parts.append(polyline(drawn, stroke=ink, stroke_width=2.0 if model == "medbert" else 1.3, **dash))
        parts += [tag("circle", cx=x, cy=y, r=3.2 if model == "medbert" else 2.2, fill=ink) for x, y in drawn]
    return svg(310, 324, f"Calibration, {title}", *parts)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 … per decade, so that ticks are round."""
    for top in (0.02, 0.04, 0.08, 0.12, 0.2, 0.28, 0.4, 0.6, 0.8):
        if value <= top:
            return top
    return 1.0


def network(edges: Sequence[Edge], names: dict[str, str], label: str) -> str:
    """Codes on a circle, coloured by ICD chapter; a line per pair, thicker where stronger, an arrow where directed."""
    if not edges:
        return ""
    codes = sorted({c for e in edges for c in (e.source, e.target)}, key=lambda c: (chapter_rank(c), c))
    angle = {code: 2 * pi * k / len(codes) - pi / 2 for k, code in enumerate(codes)}
    strength = [log(max(e.weight, 1e-9)) for e in edges]
    span = max(strength) - min(strength) or 1.0
    parts = [
        _chord(e, angle, 1.2 + 3.3 * (s - min(strength)) / span)
        for e, s in sorted(zip(edges, strength, strict=True), key=lambda p: p[1])
    ]
    parts += [_node(code, angle[code], names) for code in codes]
    parts += _legend(codes)
    return svg(900, 780, label, *parts)


CENTRE, RADIUS = (372.0, 390.0), 200.0


def _place(angle: float, radius: float) -> tuple[float, float]:
    return CENTRE[0] + radius * cos(angle), CENTRE[1] + radius * sin(angle)


def _chord(edge: Edge, angle: dict[str, float], width: float) -> str:
    (x1, y1), (x2, y2) = _place(angle[edge.source], RADIUS - 9), _place(angle[edge.target], RADIUS - 9)
    pull = 0.85 - 0.65 * hypot(x2 - x1, y2 - y1) / (2 * RADIUS)  # neighbours bend little, opposites through the middle
    cx, cy = CENTRE[0] + ((x1 + x2) / 2 - CENTRE[0]) * pull, CENTRE[1] + ((y1 + y2) / 2 - CENTRE[1]) * pull
    ink, shown = (
        colour(edge.source),
        f"{short_code(edge.source)} {'→' if edge.directed else '–'} {short_code(edge.target)}",
    )
    title = tag("title", escape(f"{shown}: {edge.weight:.3g}"))
    if not edge.directed:
        return _path(f"M{x1:.1f} {y1:.1f}Q{cx:.1f} {cy:.1f} {x2:.1f} {y2:.1f}", title, ink, width)
    length = hypot(x2 - cx, y2 - cy) or 1.0
    ux, uy, head = (x2 - cx) / length, (y2 - cy) / length, 7 + width
    bx, by = x2 - ux * head, y2 - uy * head
    half = head * 0.42
    corners = [(x2, y2), (bx - uy * half, by + ux * half), (bx + uy * half, by - ux * half)]
    arrow = tag("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), fill=ink)
    return _path(f"M{x1:.1f} {y1:.1f}Q{cx:.1f} {cy:.1f} {bx:.1f} {by:.1f}", title, ink, width) + arrow


def _path(d: str, title: str, ink: str, width: float) -> str:
    return tag("path", title, d=d, fill="none", stroke=ink, stroke_width=width, stroke_opacity=0.62)


def _node(code: str, angle: float, names: dict[str, str]) -> str:
    x, y = _place(angle, RADIUS)
    tx, ty = _place(angle, RADIUS + 12)
    left = cos(angle) < -1e-9
    turn = degrees(angle) + (180 if left else 0)
    shown = short_code(code)
    name = names.get(code, "")
    name = name if len(name) <= 22 else name[:21].rstrip(" ,") + "…"
    label = tag("tspan", escape(shown), class_="strong") + (escape(" " + name) if name else "")
    placed = f"translate({tx:.1f} {ty:.1f}) rotate({turn:.1f})"
    words = tag("text", label, transform=placed, text_anchor="end" if left else "start", dy="0.35em", class_="label")
    return tag("circle", cx=x, cy=y, r=6.0, fill=colour(code)) + words


def _legend(codes: Sequence[str]) -> list[str]:
    chapters = {chapter(code): colour(code) for code in codes}
    parts = []
    for k, (name, ink) in enumerate(chapters.items()):
        y = 30 + 19 * k
        parts += [tag("circle", cx=742, cy=y - 4, r=5.0, fill=ink), text(754, y, name, class_="label")]
    return parts
