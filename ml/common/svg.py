"""Small inline SVG, made by hand: no script, no network, whatever is text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Points = Sequence[tuple[float, float]]


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
