"""Fisher's exact test of every pair: Vigil's numba kernel against a loop over scipy.stats.fisher_exact.

Run: python -m benchmarks.fisher [--patients 500000] [--codes 1500] [--sample 2000]

The pairs are those of synthetic histories. scipy would take minutes for all of them: it is timed on a random sample
of pairs, before and after Vigil's run on all, and scaled by the number of pairs. The largest relative difference of
the p-values is taken over the sample, where scipy's p-value is above 1e-290.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import stats

from benchmarks.cooccurrence import synthetic
from ml.interconnections.counting import count_together
from ml.interconnections.methods.fisher import fisher_log_p


def scipy_loop(both: np.ndarray, first: np.ndarray, second: np.ndarray, total: int) -> tuple[np.ndarray, float]:
    """p-values and seconds."""
    tables = list(zip(both.tolist(), first.tolist(), second.tolist(), strict=True))
    begun = time.perf_counter()
    values = [stats.fisher_exact([[k, a - k], [b - k, total - a - b + k]]).pvalue for k, a, b in tables]
    return np.array(values), time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=500_000)
    parser.add_argument("--codes", type=int, default=1_500)
    parser.add_argument("--sample", type=int, default=2_000)
    options = parser.parse_args()
    counts = count_together(synthetic(options.patients, options.codes))
    i, j = np.triu_indices(options.codes, 1)
    both, first, second = counts[i, j], counts.diagonal()[i], counts.diagonal()[j]
    begun = time.perf_counter()
    fisher_log_p(both[:10], first[:10], second[:10], options.patients)
    compiling = time.perf_counter() - begun
    chosen = np.random.default_rng(2).choice(len(both), min(options.sample, len(both)), replace=False)
    sample = both[chosen], first[chosen], second[chosen]

    theirs, before = scipy_loop(*sample, options.patients)
    begun = time.perf_counter()
    log_p = fisher_log_p(both, first, second, options.patients)
    ours = time.perf_counter() - begun
    _, after = scipy_loop(*sample, options.patients)

    scaled = (before + after) / 2 * len(both) / len(chosen)
    comparable = theirs > 1e-290
    difference = np.max(np.abs(np.exp(log_p[chosen]) - theirs)[comparable] / theirs[comparable])
    print(f"{options.patients:,} patients, {options.codes:,} codes, {len(both):,} pairs; one thread each")
    print(f"compiling, once per process: {compiling:.2f} s\n")
    print(f"{'by':<28}{'seconds':>10}{'pairs/s':>12}")
    print(f"{'numba, all pairs':<28}{ours:>10.2f}{len(both) / ours:>12,.0f}")
    print(f"{'scipy, scaled from sample':<28}{scaled:>10.1f}{len(both) / scaled:>12,.0f}")
    print(
        f"\nratio={scaled / ours:.0f} peer=scipy-fisher_exact pairs={len(both)} sample={len(chosen)} "
        f"max_rel_diff={difference:.1e} seconds={ours:.2f}"
    )


if __name__ == "__main__":
    main()
