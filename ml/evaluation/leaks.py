"""Signs that a model, or a feature, knows what it should not."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.evaluation.features import Features
from ml.evaluation.results import CELL, ORACLE, LeakWarning, ModelResult

SINGLE_CODE_AUROC = 0.95


def above_oracle(task: str, models: dict[str, ModelResult]) -> list[LeakWarning]:
    """Models whose AUROC lies above the oracle's beyond both intervals; nothing honest can."""
    oracle = models[ORACLE].auroc if ORACLE in models else None
    if oracle is None:
        return []
    found = []
    for name, result in sorted(models.items()):
        if name != ORACLE and result.auroc is not None and result.auroc.low > oracle.high:
            message = f"'{name}' reaches AUROC {result.auroc} on {task}, the oracle {oracle}: look for a leak"
            found.append(LeakWarning(kind="above_oracle", task=task, message=message))
    return found


def univariate_auroc(features: Features, rows: NDArray[np.int64], y: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUROC of "was the code ever recorded" for every code, (codes,); 0.5 for a code with too few rows."""
    shown = features.ever[rows]
    hits = np.asarray(shown[y].sum(axis=0)).ravel()
    alarms = np.asarray(shown[~y].sum(axis=0)).ravel()
    auroc: NDArray[np.float64] = 0.5 + (hits / y.sum() - alarms / (~y).sum()) / 2
    return np.where(hits + alarms >= CELL, auroc, 0.5)


def single_codes(task: str, features: Features, labels: pl.DataFrame) -> list[LeakWarning]:
    """Codes that alone tell the outcome apart too well, on training-split rows."""
    train = labels.filter(pl.col("split") == "train")
    y = train["boolean_value"].to_numpy()
    if min(y.sum(), (~y).sum()) < CELL:
        return []
    auroc = univariate_auroc(features, features.find(train), y)
    found = []
    for column in np.flatnonzero(np.maximum(auroc, 1 - auroc) > SINGLE_CODE_AUROC):
        message = f"{features.codes[column]} alone reaches AUROC {auroc[column]:.3f} on {task}: look for a leak"
        found.append(LeakWarning(kind="single_code", task=task, message=message))
    return found
