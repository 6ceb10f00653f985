"""Two pictures of a model's report: the way to the judged rows, and what the model leans on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, exp, log

from ml.common.code_names import bare_code, short_code, token_name
from ml.common.svg import svg, tag, text
from ml.evaluation.attribution import Leaning
from ml.evaluation.cohort import OTHER, TaskFlow
from ml.evaluation.words import outcome_name

IN, EVENT = "#4338ca", "#d1433f"
OUT = ("#aeb6c2", "#c9ced7", "#d6cfe0", "#dcd6c4", "#c7d8d5", "#e0d0d0", "#d5dbe8")  # reasons in the order they appear
RAISES, LOWERS = "#b4306e", "#0f766e"
BAR, LEFT, RIGHT = 24, 190, 830
MOST_UP, MOST_DOWN = 9, 5
NAME = 44  # characters


def flow(flows: Mapping[str, TaskFlow], label: str) -> str:
    """Held-out rows of every task as a bar: labelled, and left out by reason. Nothing without rows."""
    shown = {task: found for task, found in flows.items() if _total(found)}
    if not shown:
        return ""
    widest = max(_total(found) for found in shown.values())
    colours = _colours(list(shown.values()))
    parts: list[str] = []
    for k, (task, found) in enumerate(shown.items()):
        parts += _bar(outcome_name(task), found, 8 + (BAR + 10) * k, (RIGHT - LEFT) / widest, colours)
    top = 8 + (BAR + 10) * len(shown) + 10
    legend = [("labelled, and judged", IN), ("with the outcome", EVENT), *colours.items()]
    parts += _legend(legend, top)
    return svg(840, top + 22 * ceil(len(legend) / 3) + 4, label, *parts)


def _total(found: TaskFlow) -> int:
    return (found.labelled["held_out"] or 0) + sum(step.rows.get("held_out") or 0 for step in found.left_out)


def _colours(flows: Sequence[TaskFlow]) -> dict[str, str]:
    names: dict[str, str] = {}
    for found in flows:
        for step in found.left_out:
            if step.words not in names and step.words != OTHER:
                names[step.words] = OUT[len(names) % len(OUT)]
    rare = any(step.words == OTHER for found in flows for step in found.left_out)
    return {**names, OTHER: "#edf0f4"} if rare else names


def _bar(name: str, found: TaskFlow, y: float, scale: float, colours: Mapping[str, str]) -> list[str]:
    labelled, events = found.labelled["held_out"] or 0, found.events["held_out"]
    parts = [text(0, y + 16, name if len(name) <= 26 else name[:25] + "…", class_="label")]
    x = float(LEFT)
    pieces = [
        ("labelled", labelled, IN),
        *((s.words, s.rows.get("held_out") or 0, colours[s.words]) for s in found.left_out),
    ]
    for words, rows, ink in pieces:
        title = tag("title", escape(f"{words}: {rows:,}"))
        parts.append(tag("rect", title, x=x, y=y, width=max(rows * scale, 0.0), height=float(BAR), fill=ink))
        x += rows * scale
    if events is not None:
        parts.append(tag("rect", x=float(LEFT), y=y + BAR - 5, width=max(events * scale, 1.0), height=5.0, fill=EVENT))
    told = f"{labelled:,}" + (f" · {events:,} with it" if events is not None else "")
    parts.append(text(LEFT + 7, y + 14, told, fill="#fff"))
    return parts


def _legend(rows: Sequence[tuple[str, str]], top: float) -> list[str]:
    parts = []
    for k, (words, ink) in enumerate(rows):
        x, y = LEFT + 215 * (k % 3), top + 22 * (k // 3)
        parts += [tag("rect", x=float(x), y=y, width=12.0, height=12.0, rx=2, fill=ink), text(x + 18, y + 10, words)]
    return parts


def strongest(found: Sequence[Leaning]) -> list[Leaning]:
    """The codes that raise the risk most and those that lower it most, whose interval leaves out no change."""
    certain = [one for one in found if one.certain > 0]
    up = sorted((one for one in certain if one.value > 0), key=lambda one: (-one.value, one.token))[:MOST_UP]
    down = sorted((one for one in certain if one.value < 0), key=lambda one: (one.value, one.token))[:MOST_DOWN]
    return [*up, *reversed(down)]


def leanings(title: str, found: Sequence[Leaning], known: Mapping[str, str]) -> str:
    """A bar per code: by what the odds are multiplied where it is recorded. Nothing where no code is certain."""
    rows = strongest(found)
    if not rows:
        return ""
    reach = max(max(abs(one.low), abs(one.high)) for one in rows)
    middle, half, height = 560.0, 200.0, 24 * len(rows) + 34
    parts = _factors(middle, half, reach, height)
    for k, one in enumerate(rows):
        parts += _leaning(one, dict(known), middle, half / reach, 10.0 + 24 * k)
    return svg(840, height, f"Codes that the risk of {title} leans on", *parts)


def _factors(middle: float, half: float, reach: float, height: int) -> list[str]:
    parts = []
    for factor in (0.25, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0):
        x = middle + half * log(factor) / reach
        if abs(x - middle) <= half + 12:
            look = "reference" if factor == 1 else "grid"
            parts.append(tag("line", x1=x, x2=x, y1=4, y2=height - 28, class_=look))
            parts.append(text(x, height - 12, f"×{factor:g}", text_anchor="middle", class_="tick"))
    return parts


def _leaning(one: Leaning, known: dict[str, str], middle: float, scale: float, y: float) -> list[str]:
    ink = RAISES if one.value > 0 else LOWERS
    name, code = token_name(one.token, known), short_code(bare_code(one.token))
    name = name if len(name) <= NAME else name[: NAME - 1].rstrip(" ,") + "…"
    x, low, high = (middle + scale * value for value in (one.value, one.low, one.high))
    coded = one.token.startswith(("ICD", "ATC", "LOINC"))
    words = (f"{name}  {code}" if coded else name) if name else code
    return [
        text(345, y + 12, words, text_anchor="end", class_="label"),
        tag("rect", x=min(x, middle), y=y, width=abs(x - middle), height=16.0, rx=2, fill=ink, fill_opacity=0.75),
        tag("line", x1=low, x2=high, y1=y + 8, y2=y + 8, stroke="#1b2430", stroke_width=1.3),
        text(775, y + 12, f"×{exp(one.value):.2f}", class_="label"),
    ]
