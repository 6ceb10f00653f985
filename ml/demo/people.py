"""The people of the demo hospital: ages, sexes, sites, when they come and leave."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.demo.process import END, FIRST_TODAY, TRAITS, FloatArray, IntArray, day_of

LEAVE_RATE = 0.02  # a year; people move away
SITES = ("A", "B")


@dataclass(frozen=True)
class People:
    """n people. Days count from START.

    Attributes:
        born: (n,) day of birth. entry: (n,) first day in care. leave: (n,) day of moving away, or beyond END.
        sex: (n,) 0 male, 1 female. site: (n,) 0 or 1.
        traits: (n, 4) frailty, glycaemia, heart, kidney; standard normal.
    """

    born: IntArray
    entry: IntArray
    leave: IntArray
    sex: NDArray[np.int8]
    site: NDArray[np.int8]
    traits: FloatArray

    def __len__(self) -> int:
        return len(self.born)

    def take(self, chosen: NDArray[Any]) -> People:
        """The people at these positions."""
        return People(*(getattr(self, f.name)[chosen] for f in fields(self)))


def sample_people(count: int, rng: np.random.Generator, *, least_age: int = 0) -> People:
    """Draw people: 5 % children, 27 % adults of 18 to 49, the rest around 65; 53 % female; 62 % at site A.

    45 % are in care from the first day, the others enter until a year before the hospital's first today.
    """
    entry = np.where(rng.random(count) < 0.45, 0, rng.integers(0, day_of(FIRST_TODAY) - 365, count))
    kind = rng.random(count)
    years = np.clip(rng.normal(65, 13, count), 18, 97)
    years = np.where(kind < 0.32, rng.uniform(18, 50, count), years)
    years = np.where(kind < 0.05, rng.uniform(0, 18, count), years)
    if least_age:
        years = np.where(years < least_age, np.clip(np.abs(rng.normal(0, 16, count)) + least_age, least_age, 97), years)
    leave = entry + 30 + (rng.exponential(365.25 / LEAVE_RATE, count)).astype(np.int64)
    return People(
        born=entry - (years * 365.25).astype(np.int64) - 1,
        entry=entry,
        leave=np.where(leave > day_of(END), day_of(END) + 365, leave),
        sex=(rng.random(count) < 0.53).astype(np.int8),
        site=(rng.random(count) >= 0.62).astype(np.int8),
        traits=rng.standard_normal((count, len(TRAITS)), dtype=np.float32),
    )
