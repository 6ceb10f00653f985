"""Bootstrap intervals of AUROC, AUPRC, Brier score and net benefit: Vigil's blocked walk against a scikit-learn loop.

Run: python -m benchmarks.evaluation [--draws 1000] [--models 5] [--tasks 25] [--patients 20000] [--threads 2]
     [--peer-draws 4] [--peer-tasks 3] [--rounds 3]

Vigil: draws of patients, every metric in every draw (net benefit at twelve thresholds; alert rates and the calibration
curve come with the same walk), 95 % intervals of all models and of their paired differences.

The peer is what one writes first: for each draw, task and model take the drawn rows and call roc_auc_score,
average_precision_score and brier_score_loss, and count true and false positives at the same thresholds. It is timed on
the first draws of the first tasks, all models, and scaled by the number of draws, tasks and models; drawing and
intervals are left out, in its favour. Its values must equal Vigil's in the same draws before anything is reported.
It runs on one thread, so ``cpu_ratio`` compares processor time with processor time.

``seconds`` and ``ratio`` are medians of interleaved rounds. ``all_seconds`` adds the calibration slope and intercept.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from ml.evaluation.bootstrap import Counts, patient_counts
from ml.evaluation.intervals import metric_set, paired
from ml.evaluation.metrics import Draws, Scored, all_metrics, brier, ranking_metrics
from ml.evaluation.results import THRESHOLDS, MetricSet

Floats = NDArray[np.float64]
Task = dict[str, Scored]  # by model
MODELS = ("medbert", "champion", "logistic_regression", "lightgbm", "age_sex")


def make_tasks(models: int, tasks: int, patients: int, seed: int = 1) -> list[Task]:
    """Rare and common outcomes, one row a patient; the last model gives few distinct risks, as age and sex do."""
    rng = np.random.default_rng(seed)
    found = []
    for level in np.linspace(-5.2, -1.6, tasks):
        truth = rng.normal(level, 1.2, patients)
        y = rng.random(patients) < 1 / (1 + np.exp(-truth))
        names = [*(MODELS[k] if k < len(MODELS) - 1 else f"model_{k}" for k in range(models - 1)), MODELS[-1]]
        risks = [1 / (1 + np.exp(-(truth + rng.normal(0, 0.3 + 0.2 * k, patients)))) for k in range(models)]
        risks[-1] = np.round(risks[-1], 3)
        rows = np.arange(patients)
        found.append({name: Scored(y, p, rows) for name, p in zip(names, risks, strict=True)})
    return found


def four_metrics(rows: Scored, counts: Counts) -> Draws:
    """What is timed."""
    return ranking_metrics(rows.ranked(counts)) | {"brier": brier(rows, counts)}


def vigil(
    tasks: list[Task], draws: int, threads: int, metrics: Callable[[Scored, Counts], Draws]
) -> list[dict[str, MetricSet]]:
    """Intervals of every model and paired difference, by task."""
    counts = patient_counts(len(next(iter(tasks[0].values())).y), draws, seed=2)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda task: _intervals(task, counts, metrics), tasks))


def _intervals(task: Task, counts: Counts, metrics: Callable[[Scored, Counts], Draws]) -> dict[str, MetricSet]:
    draws = {name: metrics(rows, counts) for name, rows in task.items()}
    return {name: metric_set(found) for name, found in draws.items()} | paired(draws)


def scikit_learn(tasks: list[Task], drawn: list[NDArray[np.int64]]) -> Floats:
    """(tasks, models, draws, 3 + thresholds) in a loop."""
    return np.array([[[_one(rows, chosen) for chosen in drawn] for rows in task.values()] for task in tasks])


def _one(rows: Scored, chosen: NDArray[np.int64]) -> list[float]:
    y, p = rows.y[chosen], rows.p[chosen]
    found = [roc_auc_score(y, p), average_precision_score(y, p), brier_score_loss(y, p)]
    for threshold in THRESHOLDS:
        treated = p >= threshold
        right = np.count_nonzero(y & treated)
        wrong = np.count_nonzero(treated) - right
        found.append((right - wrong * threshold / (1 - threshold)) / len(y))
    return found


def largest_difference(tasks: list[Task], counts: Counts, theirs: Floats) -> float:
    """Between the peer's values and Vigil's in the same draws."""
    names = ["auroc", "auprc", "brier", *(f"net_benefit@{t:g}" for t in THRESHOLDS)]
    worst = 0.0
    for task, peer in zip(tasks, theirs, strict=True):
        for rows, of_model in zip(task.values(), peer, strict=True):
            ours = four_metrics(rows, counts)
            both = np.stack([ours[name][: len(of_model)] for name in names], axis=1)
            worst = max(worst, float(np.abs(both - of_model).max()))
    return worst


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds of the clock and of the processor."""

    wall: float
    cpu: float


def cost_of(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def medians(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("draws", 1000), ("models", 5), ("tasks", 25), ("patients", 20_000), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peer-draws", type=int, default=4)
    parser.add_argument("--peer-tasks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    o = parser.parse_args()
    tasks = make_tasks(o.models, o.tasks, o.patients)
    counts = patient_counts(o.patients, o.peer_draws - 1, seed=2)
    drawn = [np.repeat(np.arange(o.patients), count) for count in counts.matrix()]
    sample = tasks[:: max(len(tasks) // o.peer_tasks, 1)][: o.peer_tasks]
    compiling = cost_of(lambda: vigil(tasks[:1], 1, 1, all_metrics))
    difference = largest_difference(sample, counts, scikit_learn(sample, drawn))
    assert difference < 1e-9, f"values differ by {difference}"
    ours, theirs = [], []
    for _ in range(o.rounds):
        theirs.append(cost_of(lambda: scikit_learn(sample, drawn)))
        ours.append(cost_of(lambda: vigil(tasks, o.draws, o.threads, four_metrics)))
    whole = cost_of(lambda: vigil(tasks, o.draws, o.threads, all_metrics))
    scale = o.draws * o.tasks / (len(drawn) * len(sample))
    mine, peer = medians(ours), medians(theirs)
    peer = Cost(peer.wall * scale, peer.cpu * scale)
    timed = len(drawn) * len(sample) * o.models
    print(
        f"{o.models} models, {o.tasks} tasks, {o.patients:,} patients, {o.draws:,} draws; {o.threads} threads;", end=" "
    )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; medians of {o.rounds} rounds")
    print(f"equal values: largest difference {difference:.1e}; compiling, once per process: {compiling.wall:.1f} s\n")
    print(f"{'':<44}{'seconds':>10}{'cpu':>10}")
    print(f"{'vigil, four metrics with intervals':<44}{mine.wall:>10.2f}{mine.cpu:>10.2f}")
    print(f"{'vigil, and calibration':<44}{whole.wall:>10.2f}{whole.cpu:>10.2f}")
    print(f"{f'scikit-learn loop, scaled from {timed} turns':<44}{peer.wall:>10.0f}{peer.cpu:>10.0f}")
    print(
        f"\nratio={peer.wall / mine.wall:.0f} cpu_ratio={peer.cpu / mine.cpu:.0f} peer=scikit-learn-loop "
        f"peer_turns={timed} turns={o.draws * o.tasks * o.models} seconds={mine.wall:.2f} cpu_seconds={mine.cpu:.2f} "
        f"all_seconds={whole.wall:.2f} max_difference={difference:.1e}"
    )


if __name__ == "__main__":
    main()
