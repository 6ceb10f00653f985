"""The demo hospital: in comes a seed, out go an OMOP CDM 5.4 database with all the faults of a real one, its future,
which is let in day by day, and the truth about it: effects, onsets, and each patient's true risk (the oracle)."""

from __future__ import annotations

from datetime import date
from typing import Literal


def load_demo(
    patients: int | None = None,
    preset: Literal["general", "pancreas"] | None = None,
    seed: int | None = None,
    *,
    replace: bool = False,
) -> bool:
    """See `ml.demo.load.load_demo`."""
    from ml.demo.load import load_demo as load

    return load(patients, preset, seed, replace=replace)


def advance(to: date) -> int:
    """See `ml.demo.load.advance`."""
    from ml.demo.load import advance as go

    return go(to)


def today() -> date:
    """See `ml.demo.load.today`."""
    from ml.demo.load import today as day

    return day()
