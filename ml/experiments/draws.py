"""Few labelled patients: nested draws with a fixed share of cases, as in a case-control cohort."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.training.data import Labelled

Rows = NDArray[np.int64]
STOPPED_FROM = 100  # labelled patients from which a fifth of them choose when to stop; fewer cannot
PART = 5  # one of so many


@dataclass(frozen=True)
class Draw:
    """Rows of the labelled data: to learn from, and to stop on (none below `STOPPED_FROM`)."""

    training: Rows
    tuning: Rows

    @property
    def size(self) -> int:
        return len(self.training) + len(self.tuning)

    @property
    def rows(self) -> Rows:
        """All of them."""
        return np.concatenate((self.training, self.tuning))


@dataclass(frozen=True)
class Order:
    """One repeat: cases and controls in the order in which they are drawn, one row per patient."""

    cases: Rows
    controls: Rows

    @classmethod
    def of(cls, data: Labelled, seed: int, repeat: int) -> Order:
        """Shuffle the patients; a case stands at the index day before its event, a control at any of its own.

        Args:
            data: of one outcome.
        """
        rng = np.random.default_rng([seed, repeat])
        shuffled = rng.permutation(len(data.subjects))
        case = data.labels[:, 0] > 0.5
        cases = _one_each(shuffled[case[shuffled]], data.subjects)
        ill = np.isin(data.subjects, data.subjects[cases])
        return cls(cases, _one_each(shuffled[~ill[shuffled]], data.subjects))

    def draw(self, size: int | None, share: float) -> Draw | None:
        """The first patients.

        Args:
            size: labelled patients; None takes all there are.
            share: of cases, if not all are taken; at least one of each kind.

        Returns:
            None where there are too few cases or controls.
        """
        cases, controls = self.cases, self.controls
        if size is not None:
            wanted = min(max(round(share * size), 1), size - 1)
            if wanted > len(cases) or size - wanted > len(controls):
                return None
            cases, controls = cases[:wanted], controls[: size - wanted]
        if len(cases) + len(controls) < STOPPED_FROM:
            return Draw(np.concatenate((cases, controls)), np.empty(0, np.int64))
        stop = [np.arange(len(kind)) % PART == PART - 1 for kind in (cases, controls)]
        pairs = list(zip((cases, controls), stop, strict=True))
        return Draw(*(np.concatenate([kind[mask == wanted] for kind, mask in pairs]) for wanted in (False, True)))


def _one_each(rows: Rows, subjects: NDArray[np.int64]) -> Rows:
    """The first row of each subject, in the order given."""
    _, first = np.unique(subjects[rows], return_index=True)
    return rows[np.sort(first)]


def thinned(labels: NDArray[np.float32], controls: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows with any outcome, and so many times as many of the others, in order."""
    case = np.nansum(labels, axis=1) > 0
    others = np.flatnonzero(~case)
    drawn = rng.choice(others, min(controls * int(case.sum()), others.size), replace=False)
    return np.sort(np.concatenate((np.flatnonzero(case), drawn)))
