"""Slope and intercept of the logistic recalibration of a model's risks, for every bootstrap draw.

The first draw, everybody once, is fitted until it converges. Every other draw takes one step from there: its gradient,
Hessian and third derivatives are weighted sums over the same rows, so one pass over the counts serves all draws.
Newton's step alone misses a bound by up to a tenth of the interval's width with 40 events; the third-order term of
Chebyshev's method costs a few more columns and leaves a third of that. A test holds the distance to refits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement, product

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from ml.evaluation.bootstrap import Counts

Floats = NDArray[np.float64]
CLIP = 1e-6  # probabilities are kept this far from 0 and 1 before their logit is taken
LARGEST = 1e3  # a coefficient beyond it: the classes are separated and the likelihood has no maximum
STEPS, CLOSE = 100, 1e-10


def logit(p: Floats) -> Floats:
    """Log odds, of probabilities kept ``CLIP`` away from 0 and 1."""
    clipped = np.clip(p, CLIP, 1 - CLIP)
    found: Floats = np.log(clipped) - np.log1p(-clipped)
    return found


@dataclass(frozen=True)
class _Rows:
    """``design`` (k, rows), ``offset`` (rows,), ``y`` (rows,): P(y) = expit(offset + design · beta)."""

    design: Floats
    offset: Floats
    y: Floats

    def linear(self, beta: Floats) -> Floats:
        eta: Floats = self.offset + np.einsum("i,in->n", beta, self.design)  # BLAS would wake threads for two columns
        return eta

    def log_likelihood(self, beta: Floats) -> float:
        eta = self.linear(beta)
        return float(np.sum(self.y * eta - np.logaddexp(0, eta)))

    def derivatives(self, beta: Floats) -> tuple[Floats, Floats, Floats]:
        """Each row's residual, and its weights in the Hessian and in the third derivatives; (rows,) each."""
        mu = expit(self.linear(beta))
        variance = mu * (1 - mu)
        return self.y - mu, variance, variance * (1 - 2 * mu)


def _converged(rows: _Rows, beta: Floats) -> Floats:
    """Maximum likelihood by Newton steps, halved until the likelihood grows; NaN where there is no maximum."""
    nothing = np.full_like(beta, np.nan)
    reached = rows.log_likelihood(beta)
    for _ in range(STEPS):
        residual, variance, _third = rows.derivatives(beta)
        hessian = np.einsum("in,jn->ij", rows.design * variance, rows.design)
        if not np.linalg.cond(hessian) < 1e12:
            return nothing
        step = np.linalg.solve(hessian, np.einsum("in,n->i", rows.design, residual))
        while (found := rows.log_likelihood(beta + step)) < reached and np.abs(step).max() > CLOSE:
            step /= 2
        beta, reached = beta + step, found
        if not np.abs(beta).max() < LARGEST:
            return nothing
        if np.abs(step).max() <= CLOSE:
            return beta
    return nothing


def _columns(rows: _Rows, beta: Floats) -> list[Floats]:
    """What one step from ``beta`` sums up: gradient, Hessian and third derivatives, each once for every symmetric."""
    residual, variance, third = rows.derivatives(beta)
    x, k = rows.design, len(beta)
    columns = [x[i] * residual for i in range(k)]
    columns += [x[i] * x[j] * variance for i, j in _sorted_indices(k, 2)]
    columns += [x[i] * x[j] * x[m] * third for i, j, m in _sorted_indices(k, 3)]
    return columns


def _sorted_indices(k: int, order: int) -> list[tuple[int, ...]]:
    return list(combinations_with_replacement(range(k), order))


def _stepped(sums: Floats, beta: Floats) -> Floats:
    """Each draw's coefficients, (draws, k), one step from ``beta``; ``sums`` (draws, columns)."""
    k, draws = len(beta), len(sums)
    pairs, triples = _sorted_indices(k, 2), _sorted_indices(k, 3)
    gradient, second, cubic = np.split(sums, [k, k + len(pairs)], axis=1)
    hessian, curvature = np.empty((draws, k, k)), np.empty((draws, k, k, k))
    for i, j in product(range(k), range(k)):
        hessian[:, i, j] = second[:, pairs.index(tuple(sorted((i, j))))]
    for i, j, m in product(range(k), range(k), range(k)):
        curvature[:, i, j, m] = cubic[:, triples.index(tuple(sorted((i, j, m))))]
    usable = np.linalg.det(hessian) > 1e-12 * np.prod(np.diagonal(hessian, axis1=1, axis2=2), axis=1)
    hessian[~usable] = np.eye(k)
    newton = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    bend = np.einsum("dijm,dj,dm->di", curvature, newton, newton)
    found: Floats = beta + newton - np.linalg.solve(hessian, bend[..., None])[..., 0] / 2
    found[~usable] = np.nan
    return found


def calibration_slope_intercept(
    y: NDArray[np.bool_], p: Floats, patient: NDArray[np.integer], counts: Counts
) -> tuple[Floats, Floats]:
    """Slope b of P(y) = expit(a + b · logit p) (Cox 1958, Biometrika 45:562) and intercept a of expit(a + logit p).

    The intercept is calibration in the large (Van Calster et al. 2016, J Clin Epidemiol 74:167). The first draw of
    ``counts`` must be everybody once. (draws,) each; NaN where there is no maximum, as in a draw of one class.
    """
    nothing = np.full(counts.draws, np.nan)
    if y.all() or not y.any():
        return nothing, nothing.copy()
    x, truth = logit(p), y.astype(np.float64)
    prevalence = np.array([logit(truth.mean()[None])[0]])
    line = _Rows(np.stack([np.ones_like(x), x]), np.zeros_like(x), truth)
    level = _Rows(np.ones((1, len(x))), x, truth)
    fits = [(line, _converged(line, np.append(prevalence, 0.0))), (level, _converged(level, prevalence - x.mean()))]
    columns = [_columns(rows, beta) if np.isfinite(beta).all() else [] for rows, beta in fits]
    sums = counts.sums(np.stack([truth, 1 - truth, *columns[0], *columns[1]], axis=1), patient)
    one_class = (sums[:, :2] == 0).any(axis=1)
    found, parts = [], np.split(sums[:, 2:], [len(columns[0])], axis=1)
    for (_rows, beta), part in zip(fits, parts, strict=True):
        if not part.shape[1]:
            found.append(nothing.copy())
            continue
        each = _stepped(part, beta)
        each[0] = beta
        found.append(np.where(one_class, np.nan, each[:, -1]))
    return found[0], found[1]
