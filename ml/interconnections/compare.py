"""How well a matrix recovers directed effects that are known, as the demo hospital's are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ml.common.errors import NotFoundError
from ml.interconnections.matrix import SIGNIFICANT, Z95, InterconnectionMatrix


@dataclass(frozen=True)
class TrueEffect:
    """A known effect of one disease category on another (``E11`` or ``ICD10CM//E11``).

    Attributes:
        ratio: hazard ratio; above 1 the source brings the target, below 1 it protects.
    """

    source: str
    target: str
    ratio: float


@dataclass(frozen=True)
class Recovery:
    """What a matrix says about known effects. Ordered pairs throughout; an undirected pair stands for both.

    Attributes:
        effects: known effects between the matrix's codes.
        shown: those the matrix has a weight for.
        significant: shown, p-adjusted < 0.05, on the right side of 1; 0 where the method has no test.
        wrong_sign: significant on the wrong side of 1.
        reversed: effects of which only the opposite order is significantly above 1.
        other_pairs: pairs with a weight and without a known effect either way.
        other_significant: of those, significantly above 1. Paths through a third disease and shared causes, which are
            real associations, are among them.
        auroc: of the strength of evidence for a positive weight, effects above 1 against all other ordered pairs of
            the codes; a pair without a weight counts as no evidence.
        precision_at_effects: share of effects above 1 among as many pairs of the strongest evidence.
    """

    effects: int
    shown: int
    significant: int
    wrong_sign: int
    reversed: int
    other_pairs: int
    other_significant: int
    auroc: float
    precision_at_effects: float


def evidence(matrix: InterconnectionMatrix) -> NDArray[np.float64]:
    """(C, C) z-value of the log weight where there is an interval, else the weight; 0 where there is no pair."""
    pairs = matrix.pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.log(pairs.ci_high / pairs.ci_low) / (2 * Z95)
        z = np.where(np.isnan(error), pairs.weight, np.log(pairs.weight) / error)
    return _place(matrix, z, 0.0)


def recovery(matrix: InterconnectionMatrix, truth: Iterable[TrueEffect]) -> Recovery:
    """Compare a matrix with known effects.

    Raises:
        NotFoundError: none of the effects is between codes of the matrix, or none brings its target.
    """
    ratio = _ratios(matrix, truth)
    known, positive = ~np.isnan(ratio), ratio > 1
    if not positive.any():
        raise NotFoundError("no known effect lies between the codes of the matrix", "compare with its own hospital")
    weight = matrix.dense()
    shown, significant = ~np.isnan(weight), _place(matrix, matrix.pairs.p_adjusted, 1.0) < SIGNIFICANT
    above = significant & (weight > 1)
    right = significant & ((weight > 1) == positive)
    other = shown & ~known & ~known.T
    off = ~np.eye(len(matrix.codes), dtype=bool)
    strength = evidence(matrix)
    strongest = np.argsort(-strength[off], kind="stable")[: int(positive.sum())]
    return Recovery(
        effects=int(known.sum()),
        shown=int((known & shown).sum()),
        significant=int((known & right).sum()),
        wrong_sign=int((known & significant & ~right).sum()),
        reversed=int((positive & ~above & above.T & ~known.T).sum()),
        other_pairs=int(other.sum()),
        other_significant=int((other & above).sum()),
        auroc=_auroc(strength[off], positive[off]),
        precision_at_effects=float(positive[off][strongest].mean()),
    )


def _ratios(matrix: InterconnectionMatrix, truth: Iterable[TrueEffect]) -> NDArray[np.float64]:
    place = {code: index for index, code in enumerate(matrix.codes)}
    place |= {code.split("//")[-1]: index for code, index in place.items() if code.startswith("ICD10CM//")}
    ratio = np.full((len(matrix.codes),) * 2, np.nan)
    for effect in truth:
        if effect.source in place and effect.target in place:
            ratio[place[effect.source], place[effect.target]] = effect.ratio
    return ratio


def _place(matrix: InterconnectionMatrix, values: NDArray[np.float64], absent: float) -> NDArray[np.float64]:
    dense = np.full((len(matrix.codes),) * 2, absent)
    dense[matrix.pairs.source, matrix.pairs.target] = values
    if not matrix.directed:
        dense[matrix.pairs.target, matrix.pairs.source] = values
    return dense


def _auroc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Mann-Whitney: chance that a positive pair has more evidence than another one, ties one half."""
    count = int(positive.sum())
    ranks = float(rankdata(score)[positive].sum())
    return (ranks - count * (count + 1) / 2) / (count * (len(score) - count))
