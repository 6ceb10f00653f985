"""Gradient boosting on counts of codes by look-back window: what most hospitals would build first.

LightGBM (Ke et al. 2017, NeurIPS 30) over the raw counts, age and sex. The number of trees is found on the tuning rows
by early stopping, for each of ``LEAVES``, and the better of the two is kept.
"""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.settings import get_settings

Floats = NDArray[np.float64]
LEAVES = (7, 31)
ROUNDS, PATIENCE = 300, 20
LEAST_IN_LEAF = 20
PARAMETERS = {
    "objective": "binary",
    "metric": "binary_logloss",
    "learning_rate": 0.1,
    "max_bin": 63,  # counts are small, and a year of age is fine enough
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
    "feature_pre_filter": False,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def boosted(
    train: sp.csr_matrix,
    train_y: NDArray[np.bool_],
    tuning: sp.csr_matrix,
    tuning_y: NDArray[np.bool_],
    answered: sp.csr_matrix,
    least: int = LEAST_IN_LEAF,
) -> Floats:
    """Probabilities of the answered rows; there must be both classes to learn from.

    Args:
        least: training rows in a leaf.

    Without both classes among the tuning rows nothing can stop the fit: a fifth of the rounds is taken.
    """
    settings = get_settings()
    parameters = PARAMETERS | {
        "min_data_in_leaf": least,
        "seed": settings.seed % 2**31,
        "num_threads": settings.threads,
    }
    data = lgb.Dataset(train, train_y.astype(np.float32), free_raw_data=False)
    if tuning_y.all() or not tuning_y.any():
        model = lgb.train(parameters | {"num_leaves": LEAVES[0]}, data, ROUNDS // 5)
        return _risk(model, answered)
    held = lgb.Dataset(tuning, tuning_y.astype(np.float32), reference=data, free_raw_data=False)
    best, answer = np.inf, np.empty(0)
    for leaves in LEAVES:
        stop = lgb.early_stopping(PATIENCE, verbose=False)
        model = lgb.train(parameters | {"num_leaves": leaves}, data, ROUNDS, valid_sets=[held], callbacks=[stop])
        loss = model.best_score["valid_0"]["binary_logloss"]
        if loss < best:
            best, answer = loss, _risk(model, answered)
    return answer


def _risk(model: lgb.Booster, rows: sp.csr_matrix) -> Floats:
    if not rows.shape[0]:
        return np.empty(0)
    return np.asarray(model.predict(rows), np.float64)
