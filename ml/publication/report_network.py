"""The picture of the strongest interconnections: codes on a circle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import cos, degrees, hypot, log, pi, sin

from ml.common.code_names import chapter, chapter_rank, colour, short_code
from ml.common.svg import svg, tag, text


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
