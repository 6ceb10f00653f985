"""Patients per pair of diagnoses: Vigil's numba loops against scipy's sparse AᵀA and DuckDB's self-join.

Run: python -m benchmarks.cooccurrence [--patients 500000] [--codes 1500] [--rounds 3]

Synthetic histories, 12 diagnoses a patient on average before duplicates, frequencies as 1/rank^0.9. Every contender
starts from the arrays or table it likes best; runs are interleaved and the medians compared. Results must be equal.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from ml.interconnections.cohort import Cohort, Histories
from ml.interconnections.counting import count_ordered, count_together

TOGETHER = """
    select a.code, b.code, count(*) from d a join d b on a.patient = b.patient and a.code <= b.code group by all
"""
ORDERED = """
    select a.code, b.code, count(*) from d a join d b on a.patient = b.patient and a.day < b.day group by all
"""
Counts = NDArray[np.int64]


def synthetic(patients: int, codes: int, seed: int = 1) -> Cohort:
    """Patients whose diagnoses know nothing of each other."""
    draw = np.random.default_rng(seed)
    weight = np.arange(1, codes + 1) ** -0.9
    patient = np.repeat(np.arange(patients, dtype=np.int64), draw.poisson(12, patients))
    code = np.searchsorted(np.cumsum(weight) / weight.sum(), draw.random(len(patient))).clip(0, codes - 1)
    key = np.unique(patient * codes + code)
    patient, code = np.divmod(key, codes)
    zeros = np.zeros(patients, np.int32)
    histories = Histories(
        codes=tuple(f"ICD10CM//{number:04d}" for number in range(codes)),
        offsets=np.concatenate([[0], np.cumsum(np.bincount(patient, minlength=patients))]).astype(np.int64),
        code=code.astype(np.int32),
        day=draw.integers(0, 5_000, len(code)).astype(np.int32),
        start=zeros,
        end=zeros + 5_000,
        birth=zeros - 20_000,
        sex=zeros.astype(np.int8),
    )
    return Cohort((histories,), histories.codes, 0, date(2020, 1, 1), "")


def scipy_together(cohort: Cohort) -> Callable[[], Counts]:
    (shard,) = cohort.shards
    ones = np.ones(len(shard.code), np.int32)
    matrix = sparse.csr_matrix((ones, shard.code, shard.offsets), shape=(shard.patients, len(cohort.codes)))
    return lambda: (matrix.T @ matrix).toarray().astype(np.int64)


def duckdb_counts(cohort: Cohort, query: str, symmetric: bool) -> Callable[[], Counts]:
    (shard,) = cohort.shards
    patient = np.repeat(np.arange(shard.patients, dtype=np.int32), np.diff(shard.offsets))
    database = duckdb.connect(config={"threads": 1})
    arrow = pa.table({"patient": patient, "code": shard.code, "day": shard.day})
    database.register("arrow", arrow)
    database.execute("create table d as select * from arrow")

    def run() -> Counts:
        found = database.execute(query).fetchnumpy()
        rows, columns, values = found.values()
        counts = np.zeros((len(cohort.codes),) * 2, np.int64)
        counts[rows, columns] = values
        return counts + np.triu(counts, 1).T if symmetric else counts

    return run


def measure(contenders: dict[str, Callable[[], Counts]], rounds: int) -> dict[str, float]:
    """Median seconds by contender, runs interleaved; the first contender is what the others must equal."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        expected = None
        for name, run in contenders.items():
            begun = time.perf_counter()
            result = run()
            seconds[name].append(time.perf_counter() - begun)
            expected = result if expected is None else expected
            if not np.array_equal(result, expected):
                raise SystemExit(f"{name} counts something else")
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=500_000)
    parser.add_argument("--codes", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warm, cohort = synthetic(1_000, 50), synthetic(options.patients, options.codes)
    begun = time.perf_counter()
    count_together(warm)
    count_ordered(warm)
    compiling = time.perf_counter() - begun
    together = measure(
        {
            "numba": lambda: count_together(cohort),
            "scipy-sparse": scipy_together(cohort),
            "duckdb": duckdb_counts(cohort, TOGETHER, symmetric=True),
        },
        options.rounds,
    )
    ordered = measure(
        {"numba": lambda: count_ordered(cohort), "duckdb": duckdb_counts(cohort, ORDERED, symmetric=False)},
        options.rounds,
    )
    rows = len(cohort.shards[0].code)
    print(f"{options.patients:,} patients, {options.codes:,} codes, {rows:,} first diagnoses; one thread each")
    print(f"compiling both kernels, once per process: {compiling:.2f} s\n")
    print(f"{'counts':<12}{'by':<14}{'seconds':>9}{'ratio':>8}")
    for title, table in (("both, ever", together), ("A before B", ordered)):
        for name, value in table.items():
            print(f"{title:<12}{name:<14}{value:>9.3f}{value / table['numba']:>8.1f}")
    print(
        f"\nratio={together['scipy-sparse'] / together['numba']:.1f} peer=scipy-sparse "
        f"duckdb_ratio={together['duckdb'] / together['numba']:.1f} "
        f"ordered_ratio={ordered['duckdb'] / ordered['numba']:.1f} ordered_peer=duckdb "
        f"seconds={together['numba']:.3f} patients={options.patients} codes={options.codes}"
    )


if __name__ == "__main__":
    main()
