"""Signs that a model, or a feature, knows what it should not. Any of them blocks the gate.

Where the oracle is known nothing honest exceeds it: it knows the true process and everything recorded by the index day.
Anywhere else a leak of the future shows as a code that tells the outcome by itself: the outcome's own code recorded too
early, a code that is only written once the diagnosis is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.features import Features
from ml.evaluation.intervals import Judged, difference, estimate
from ml.evaluation.results import CELL, ORACLE, LeakWarning

Floats = NDArray[np.float64]
SINGLE_CODE_AUROC = 0.95
SINGLE_CODE_PPV = 0.9  # lower bound of the share with the outcome among the rows that show a code …
SINGLE_CODE_SHARE = 0.1  # … which at least this share of the events shows …
COMMON = 0.5  # … where at most this share of all rows has the outcome
Z = 1.959964


def above_oracle(task: str, judged: dict[str, Judged]) -> list[LeakWarning]:
    """Models whose AUROC has its lower bound above the oracle's, and whose paired difference has it above 0.

    Both: the first alone would depend on how lucky the oracle is on these patients, the second alone would be passed
    by chance by one of forty models that are as good as the oracle.
    """
    oracle = judged.get(ORACLE)
    if oracle is None or oracle.draws is None or oracle.result.auroc is None:
        return []
    found = []
    for name, model in sorted(judged.items()):
        auroc = model.result.auroc
        if name == ORACLE or model.draws is None or auroc is None:
            continue
        paired = estimate(difference(model.draws, oracle.draws)["auroc"])
        if auroc.low > oracle.result.auroc.value and paired is not None and paired.low > 0:
            message = f"'{name}' reaches AUROC {auroc} on {task}, the oracle {oracle.result.auroc}: look for a leak"
            found.append(LeakWarning(kind="above_oracle", task=task, message=message))
    return found


@dataclass(frozen=True)
class CodeStrength:
    """How well "was the code ever recorded" tells the outcome, for every code; float64 (codes,).

    Attributes:
        auroc: 0.5 for a code with fewer than ``CELL`` rows.
        ppv, ppv_low: share with the outcome among rows that show the code, and its lower bound (Wilson 1927, 95 %).
        share: share of the rows with the outcome that show the code.
    """

    auroc: Floats
    ppv: Floats
    ppv_low: Floats
    share: Floats


def code_strength(features: Features, rows: NDArray[np.int64], y: NDArray[np.bool_]) -> CodeStrength:
    """Strength of every code on these rows, of which some have the outcome and some have not."""
    shown = features.ever[rows]
    hits = np.asarray(shown[y].sum(axis=0), np.float64).ravel()
    alarms = np.asarray(shown[~y].sum(axis=0), np.float64).ravel()
    n = np.maximum(hits + alarms, 1)
    auroc = np.where(hits + alarms >= CELL, 0.5 + (hits / y.sum() - alarms / (~y).sum()) / 2, 0.5)
    ppv = hits / n
    spread = Z * np.sqrt(ppv * (1 - ppv) / n + Z**2 / (4 * n**2))
    return CodeStrength(auroc, ppv, (ppv + Z**2 / (2 * n) - spread) / (1 + Z**2 / n), hits / y.sum())


def single_codes(task: str, features: Features, labels: pl.DataFrame) -> list[LeakWarning]:
    """Codes that alone tell the outcome too well, on training-split rows."""
    train = labels.filter(pl.col("split") == "train")
    y = train["boolean_value"].to_numpy()
    if min(y.sum(), (~y).sum()) < CELL:
        return []
    found = code_strength(features, features.find(train), y)
    separating = np.maximum(found.auroc, 1 - found.auroc) > SINGLE_CODE_AUROC
    certain = (found.ppv_low > SINGLE_CODE_PPV) & (found.share >= SINGLE_CODE_SHARE) & (y.mean() <= COMMON)
    warnings = []
    for column in np.flatnonzero(separating | certain):
        code = features.codes[column]
        if separating[column]:
            message = f"{code} alone reaches AUROC {found.auroc[column]:.3f} on {task}: look for a leak"
        else:
            message = (
                f"{found.ppv[column]:.0%} of the rows that show {code} have the outcome {task}, "
                f"and {found.share[column]:.0%} of the events show it: look for a leak"
            )
        warnings.append(LeakWarning(kind="single_code", task=task, message=message))
    return warnings
