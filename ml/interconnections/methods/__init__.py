"""One file per method, one signature: ``method(cohort, min_cell) -> InterconnectionMatrix``.

Importing this package imports numba and scipy.
"""

from collections.abc import Callable

from ml.interconnections.cohort import Cohort
from ml.interconnections.matrix import InterconnectionMatrix
from ml.interconnections.methods.fisher import fisher
from ml.interconnections.methods.jaccard import jaccard
from ml.interconnections.methods.relative_risk import relative_risk

METHODS: dict[str, Callable[[Cohort, int], InterconnectionMatrix]] = {
    "jaccard": jaccard,
    "fisher": fisher,
    "relative_risk": relative_risk,
}
