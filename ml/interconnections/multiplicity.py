"""False-discovery control over the whole family of pairs, on logarithms, because many p-values underflow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def benjamini_hochberg(log_p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithms of the adjusted p-values of Benjamini and Hochberg (J R Stat Soc B 1995;57:289-300).

    Args:
        log_p: (n,) natural logarithms of the p-values of every test that was made, not of those to be shown.

    Returns:
        (n,) at most 0, in the order given: min over ranks k ≥ rank of log p_(k) + log(n / k).
    """
    count = len(log_p)
    order = np.argsort(log_p, kind="stable")
    scaled = log_p[order] + np.log(count / np.arange(1, count + 1)) if count else log_p
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 0.0)
    return adjusted
