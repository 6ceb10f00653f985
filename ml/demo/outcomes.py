"""Tasks in the terms of the demo's process: which diseases are the outcome, and with what share of their codes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.cohorts.tasks import Task
from ml.demo.process import Process
from ml.demo.recorded import DIAGNOSIS
from ml.extraction.schema import DEATH

DRUG = "ATC//"


@dataclass(frozen=True)
class Outcome:
    """An outcome the oracle knows.

    Attributes:
        shares: (D, 2) share of a disease's codes, by site, that are the outcome; zeros where it is death.
        death: it is death.
        first: those who ever had it are out of scope, so that only a first coding counts.
        delay, horizon: days from the prediction time from which, and up to which, it counts.
    """

    shares: NDArray[np.float64]
    death: bool
    first: bool
    delay: int
    horizon: int

    @property
    def diseases(self) -> NDArray[np.int64]:
        """The diseases that can be the outcome."""
        return np.flatnonzero(self.shares.max(axis=1) > 0)


def outcome_of(process: Process, task: Task) -> Outcome | None:
    """The outcome of a task; None where the oracle does not know it: one without diseases of the process (admissions,
    pregnancies), or with a drug that is given for other diseases as well.
    """
    code = re.compile(task.outcome)
    shares = np.array(
        [
            [sum(share for name, share in site if code.search(DIAGNOSIS + name)) for site in disease.codes]
            for disease in process.diseases
        ]
    )
    death = bool(code.search(DEATH))
    categories = {process.diseases[d].category for d in np.flatnonzero(shares.max(axis=1) > 0)}
    drugs = {drug.category for drug in process.drugs if code.search(DRUG + drug.atc)}
    if not (death or categories) or drugs - categories:
        return None
    return Outcome(shares, death, task.excludes_prior, task.delay_days, task.horizon_days)
