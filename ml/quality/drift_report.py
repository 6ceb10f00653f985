"""A report's part on drift: volumes and codes of the night beside its trailing weeks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.common.html import markup
from ml.common.svg import polyline, svg, tag
from ml.quality.verdict import CodeCount, Drift, KindDrift, Volume
from ml.quality.volume import departure

TEMPLATES = Path(__file__).parent / "templates"
WIDTH, HEIGHT, MARGIN = 220, 44, 6


@dataclass(frozen=True)
class DriftRow:
    """A kind of record as the report shows it; an empty text where there is nothing to say.

    Attributes:
        rows, expected: counts; a small one is not shown.
        unusual: the volume is beyond what is tolerated, or the kind is absent.
        picture: rows per day of the trailing nights, and the night's own.
        psi, met, met_before: figures of the codes.
        drifted: the population stability index is beyond its limit.
        new, vanished: codes by name, and how many there are.
    """

    kind: str
    rows: str
    expected: str
    unusual: bool
    picture: Any
    psi: str = ""
    drifted: bool = False
    met: str = ""
    met_before: str = ""
    new: tuple[CodeCount, ...] = ()
    new_codes: int = 0
    vanished: tuple[CodeCount, ...] = ()
    vanished_codes: int = 0


def kinds_of(drift: Drift | None, least: int) -> list[DriftRow]:
    """A row per kind of record; none without drift, or in a base load."""
    if drift is None:
        return []
    codes = {kind.kind: kind for kind in drift.kinds}
    return [
        _row(volume, codes.get(volume.kind), least)
        for volume in drift.volumes
        if volume.rows or any(volume.days.values())
    ]


def _row(volume: Volume, codes: KindDrift | None, least: int) -> DriftRow:
    row = DriftRow(
        kind=volume.kind,
        rows=_shown(volume.rows, least),
        expected=_range(volume, least),
        unusual=volume.absent or departure(volume) > 1,
        picture=markup(sparkline(volume, least)),
    )
    if codes is None:
        return row
    return DriftRow(
        **{
            **vars(row),
            "psi": "" if codes.psi is None else f"{codes.psi:.2f}",
            "drifted": codes.psi is not None and codes.psi_limit is not None and codes.psi > codes.psi_limit,
            "met": f"{1 - codes.unmet_share:.1%}" if codes.rows >= least else "",
            "met_before": f"{1 - codes.unmet_share_before:.1%}" if codes.rows_before >= least else "",
            "new": tuple(code for code in codes.new_named if code.rows >= least),
            "new_codes": codes.new_codes,
            "vanished": tuple(code for code in codes.vanished_named if code.rows >= least),
            "vanished_codes": codes.vanished_codes,
        }
    )


def _shown(count: float, least: int) -> str:
    return f"<{least}" if 0 < count < least else f"{count:,.0f}"


def _range(volume: Volume, least: int) -> str:
    if volume.expected is None or volume.tolerance is None:
        return "not known yet"
    low, high = max(0.0, volume.expected - volume.tolerance), volume.expected + volume.tolerance
    return f"{_shown(low, least)} to {_shown(high, least)}"


def sparkline(volume: Volume, least: int) -> str:
    """Rows per day of the trailing nights, the tolerated band, and a dot for the night; small counts look alike."""
    heights = [_visible(count, least) for count in volume.days.values()] + [_visible(volume.rows, least)]
    low, high = _band(volume)
    top = max(*heights, high, 1.0)
    points = [(_across(k, len(heights)), _up(count, top)) for k, count in enumerate(heights)]
    place = {"x": float(MARGIN), "width": float(WIDTH - 2 * MARGIN), "y": _up(high, top)}
    band = tag("rect", **place, height=_up(low, top) - _up(high, top), fill="#e9e8fb")
    ink = "#d1433f" if volume.absent or departure(volume) > 1 else "#4338ca"
    x, y = points[-1]
    name = volume.kind.replace("_", " ")
    label = f"Rows of {name} per night over {len(volume.days)} trailing days and this night"
    dot = tag("circle", cx=x, cy=y, r=3.5, fill=ink)
    return svg(WIDTH, HEIGHT, label, band if high else "", polyline(points, stroke="#7b8694", stroke_width=1.5), dot)


def _band(volume: Volume) -> tuple[float, float]:
    if volume.expected is None or volume.tolerance is None:
        return 0.0, 0.0
    return max(0.0, volume.expected - volume.tolerance), volume.expected + volume.tolerance


def _visible(count: float, least: int) -> float:
    return least / 2 if 0 < count < least else float(count)


def _across(place: int, places: int) -> float:
    return MARGIN + (WIDTH - 2 * MARGIN) * (place / max(places - 1, 1))


def _up(count: float, top: float) -> float:
    return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * count / top


def absent_drift(drift: Drift | None) -> str:
    """Why nothing, or not all, is compared with the trailing weeks; empty where all is."""
    if drift is None:
        return "The verdict of this night says nothing of drift."
    if not drift.recent_from:
        return "A base load has no nights before it that its volumes and codes could be compared with."
    if not drift.kinds:
        return (
            f"Codes are not compared yet: {drift.reference_days} days lie before the trailing "
            f"{drift.recent_days}, and a week is needed."
        )
    return ""


def unjudged(drift: Drift | None) -> Sequence[str]:
    """Kinds with too few rows for their codes to be judged."""
    return [kind.kind.replace("_", " ") for kind in drift.kinds if not kind.judged] if drift else []
