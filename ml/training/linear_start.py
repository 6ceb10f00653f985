"""Where fine-tuning begins: the heads' linear path at its ridge-logistic optimum.

With a few hundred events per outcome, stochastic steps on a rare code are too few to move its weight, and what
logistic regression knows would be lost. It is fitted in a second instead; the encoder then learns what is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.optimize import minimize

from ml.models.embeddings import age_feature
from ml.models.heads import AGE_POWERS, Heads
from ml.models.medbert import MedBert
from ml.sequences import Item
from ml.sequences.batches import stored
from ml.sequences.form import CompiledForm
from ml.sequences.packing import Int32, Int64
from ml.training.data import Labelled

Float64 = npt.NDArray[np.float64]
RIDGE = 80.0  # on the log-likelihood's sum: a code needs a few dozen events before its weight is worth anything
ITERATIONS = 150
AT_ONCE = 8_192  # sequences whose codes are gathered at once


def start_linear(model: MedBert, training: Labelled) -> None:
    """Set the heads to the logistic regression of each outcome on the codes present and the age; the encoder's part
    of the heads starts at zero.

    Args:
        model: must have heads with a linear path.
        training: labels of the train split; an outcome without events keeps zero weights and its prior.
    """
    assert isinstance(model.heads, Heads)
    assert model.heads.codes is not None
    parents = model.embeddings.parents.cpu().numpy()
    codes, age = features(training.source, parents, model.form)
    weight, bias = model.heads.out.weight, model.heads.out.bias
    with torch.no_grad():
        weight.zero_()
        model.heads.codes.zero_()
        for outcome in range(training.labels.shape[1]):
            known = ~np.isnan(training.labels[:, outcome])
            labels = training.labels[known, outcome].astype(np.float64)
            if 0 < labels.sum() < labels.size:
                found = ridge_logistic(codes[known], age[known], labels)
                model.heads.codes[:, outcome] = torch.from_numpy(found[: codes.shape[1]])
                weight[outcome, -AGE_POWERS:] = torch.from_numpy(found[codes.shape[1] : -1])
                bias[outcome] = float(found[-1])


def features(source: Item, parents: npt.NDArray[np.int64], form: CompiledForm) -> tuple[sp.csr_matrix, Float64]:
    """What `Heads` sees of each sequence beside the encoder: codes present ``[n, vocabulary]``, age powers and a
    constant ``[n, 4]``."""
    blocks = [
        _features(source, np.arange(start, min(start + AT_ONCE, source.row.size)), parents, form)
        for start in range(0, max(source.row.size, 1), AT_ONCE)
    ]
    ages = np.concatenate([found for _, found in blocks])
    age = np.where(ages >= 0, age_feature(torch.from_numpy(ages)).numpy(), 0.0).astype(np.float64)
    dense = np.stack([age ** (power + 1) for power in range(AGE_POWERS)] + [np.ones_like(age)], axis=1)
    return sp.vstack([codes for codes, _ in blocks], format="csr"), dense


def _features(
    source: Item, items: Int64, parents: npt.NDArray[np.int64], form: CompiledForm
) -> tuple[sp.csr_matrix, Int32]:
    """Codes present ``[items, vocabulary]`` and ages at the index day ``[items]``."""
    as_stored = stored(source, items)
    shown = form.show(as_stored)
    rows, tokens = np.tile(shown.owner, 2), np.concatenate((shown.tokens, parents[shown.tokens]))
    codes = sp.csr_matrix((np.ones(rows.size), (rows, tokens)), shape=(items.size, parents.size))
    codes.data[:] = 1.0  # present, however often
    codes = codes @ sp.diags_array((np.arange(parents.size) > 0).astype(np.float64))  # [PAD] never is
    codes.eliminate_zeros()
    return codes.tocsr(), as_stored.ages[as_stored.offsets[:-1]]


def ridge_logistic(codes: sp.csr_matrix, dense: Float64, labels: Float64, ridge: float = RIDGE) -> Float64:
    """Weights of codes, then of the dense columns, that maximise the log-likelihood less ``ridge / 2`` times the
    squared weights of the codes (Hoerl and Kennard 1970; the dense columns, the constant last, are free)."""
    count = codes.shape[1]

    def objective(weights: Float64) -> tuple[float, Float64]:
        logit = codes @ weights[:count] + dense @ weights[count:]
        error = 1.0 / (1.0 + np.exp(-np.clip(logit, -40, 40))) - labels
        loss = np.logaddexp(0.0, logit).sum() - labels @ logit + 0.5 * ridge * (weights[:count] ** 2).sum()
        return float(loss), np.concatenate((codes.T @ error + ridge * weights[:count], dense.T @ error))

    begin = np.zeros(count + dense.shape[1])
    begin[-1] = np.log(labels.mean() / (1 - labels.mean()))
    done: Any = minimize(objective, begin, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return np.asarray(done.x)
