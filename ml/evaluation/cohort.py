"""Who was judged: the way from everybody the record knows to the rows of an evaluation, and what they are like.

Aggregates only. No count below the setting ``min_cell``, and none that follows from others by subtraction.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ml.cohorts.labels import DIED, read_flow, read_times
from ml.cohorts.runs import TrainingRun
from ml.common.files import read_json, write_json
from ml.evaluation.features import Features
from ml.settings import get_settings

COHORT = "cohort.json"
SPLITS = ("train", "tuning", "held_out")
OTHER = "other reasons"
DELAY, OPEN = "outcome before it counts", "window not over yet"
Counts = dict[str, int]  # by split
Hidden = dict[str, int | None]  # by split; None where the count is not told
Floats = NDArray[np.float64]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Frozen):
    """Rows (a patient at an index day) by split; None where the count is not told."""

    words: str
    rows: Hidden


class TaskFlow(_Frozen):
    """From everybody known at the index days to the labelled rows of a task.

    Train and tuning patients count at the days that models learn from, held-out patients at every index day.

    Attributes:
        known: rows of everybody in the views.
        left_out: why rows are not labelled, most frequent first; what is small is joined.
        labelled: rows with a label; of them with the outcome, and dead within the window without it.
        patients: distinct patients among the labelled rows.
    """

    task: str
    known: Hidden
    left_out: tuple[Step, ...]
    labelled: Hidden
    events: Hidden
    died: Hidden
    patients: Hidden


class Spread(_Frozen):
    """Mean and standard deviation."""

    mean: float
    sd: float


class Share(_Frozen):
    """Share of a group that has a value; None where it, or another of its division, is a small count."""

    value: str
    share: float | None


class Group(_Frozen):
    """What some rows are like.

    Attributes:
        n: rows; None where small.
        age, history: years at the index day; since the first event.
        visits: visits recorded in the 365 days before.
        codes: distinct codes ever recorded.
        sex, site: shares.
    """

    name: str
    n: int | None
    age: Spread | None = None
    history: Spread | None = None
    visits: Spread | None = None
    codes: Spread | None = None
    sex: tuple[Share, ...] = ()
    site: tuple[Share, ...] = ()


class Cohort(_Frozen):
    """Who was judged.

    Attributes:
        flows: by task.
        splits: patients of each split in scope of any task at the newest index day: one row a patient.
        outcomes: by task, held-out rows with and without the outcome.
    """

    run: str
    flows: dict[str, TaskFlow]
    splits: tuple[Group, ...]
    outcomes: dict[str, tuple[Group, Group]]


def write_cohort(run: TrainingRun, features: Features, labels: Mapping[str, pl.DataFrame]) -> None:
    """Write ``cohort.json`` of a run.

    Args:
        labels: by task, the label rows that are judged.
    """
    flow = read_flow(run)
    found = Cohort(
        run=run.name,
        flows={task: _flow(run, flow, task) for task in labels},
        splits=_by_split(features, labels),
        outcomes={task: _by_outcome(features, frame) for task, frame in labels.items()},
    )
    write_json(run.path / COHORT, found.model_dump(mode="json"))


def read_cohort(path: Path) -> Cohort | None:
    """The cohort beside an evaluation; None where there is none."""
    return Cohort.model_validate(read_json(path / COHORT)) if (path / COHORT).is_file() else None


def _used(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that a model learns from or is judged on."""
    return frame.filter((pl.col("split") == "held_out") | (pl.col("index") > 1))


def _flow(run: TrainingRun, flow: pl.DataFrame, task: str) -> TaskFlow:
    asked, times = _used(flow.filter(pl.col("task") == task)), _used(read_times(run, task))
    complete = times.filter(pl.col("complete"))
    known, labelled = _sums(asked, pl.col("rows").sum()), _sums(complete, pl.len())
    reasons = asked.filter(pl.col("reason").is_not_null())
    left_out = {str(r): _sums(reasons.filter(pl.col("reason") == r), pl.col("rows").sum()) for r in _distinct(reasons)}
    scope = _sums(asked.filter(pl.col("reason").is_null()), pl.col("rows").sum())
    followed = _sums(times, pl.len())
    left_out[DELAY] = {split: max(scope[split] - followed[split], 0) for split in SPLITS}
    left_out[OPEN] = {split: max(followed[split] - labelled[split], 0) for split in SPLITS}
    steps = fold_reasons(left_out, get_settings().min_cell)
    told = {split: sum(step.get(split, 0) for step in steps.values()) for split in SPLITS}
    hidden = {split: told[split] != known[split] - labelled[split] for split in SPLITS}
    return TaskFlow(
        task=task,
        known={split: None if hidden[split] else known[split] for split in SPLITS},
        left_out=tuple(Step(words=words, rows=dict(counts)) for words, counts in steps.items()),
        labelled=_shown(labelled, labelled),
        events=_shown(_sums(complete.filter(pl.col("event")), pl.len()), labelled),
        died=_shown(_sums(complete.filter(pl.col("censored") == DIED), pl.len()), labelled),
        patients=_shown(_sums(complete, pl.col("subject_id").n_unique()), labelled),
    )


def _distinct(reasons: pl.DataFrame) -> list[str]:
    return reasons["reason"].unique().sort().to_list()


def _sums(frame: pl.DataFrame, what: pl.Expr) -> Counts:
    found = dict(frame.group_by("split").agg(what.alias("n")).select("split", "n").iter_rows())
    return {split: int(found.get(split, 0)) for split in SPLITS}


def _small(count: int) -> bool:
    return 0 < count < get_settings().min_cell


def _shown(counts: Counts, of: Counts) -> Hidden:
    """None for a small count, and for one whose rest is small."""
    return {s: None if _small(counts[s]) or _small(of[s] - counts[s]) else counts[s] for s in counts}


def fold_reasons(reasons: Mapping[str, Counts], least: int) -> dict[str, Counts]:
    """Reasons that nobody left out are dropped; the rarest are joined until no count of any split is small.

    What cannot be joined into a large enough count is dropped as well: then the counts do not add up, and the whole
    they were taken from must not be told either.
    """
    kept = sorted(
        ((words, counts) for words, counts in reasons.items() if any(counts.values())),
        key=lambda item: (-sum(item[1].values()), item[0]),
    )
    other: Counts = {}

    def small(counts: Counts) -> bool:
        return any(0 < n < least for n in counts.values())

    while kept and (small(other) or any(small(counts) for _, counts in kept)):
        place = next((k for k in reversed(range(len(kept))) if small(kept[k][1])), len(kept) - 1)
        _, counts = kept.pop(place)
        other = {split: other.get(split, 0) + n for split, n in counts.items()}
    if other and not small(other):
        kept.append((OTHER, other))
    return dict(kept)


def _by_split(features: Features, labels: Mapping[str, pl.DataFrame]) -> tuple[Group, ...]:
    rows = pl.concat([frame.select("subject_id", "prediction_time", "split") for frame in labels.values()]).unique()
    newest = rows.filter(pl.col("prediction_time") == rows["prediction_time"].max()).sort("subject_id")
    return tuple(_group(split, features, features.find(newest.filter(pl.col("split") == split))) for split in SPLITS)


def _by_outcome(features: Features, labels: pl.DataFrame) -> tuple[Group, Group]:
    rows = labels.filter(pl.col("split") == "held_out")
    with_it, without = (
        _group(name, features, features.find(rows.filter(pl.col("boolean_value") == value)))
        for name, value in (("with the outcome", True), ("without it", False))
    )
    return with_it, without


def _group(name: str, features: Features, rows: NDArray[np.int64]) -> Group:
    if len(rows) < get_settings().min_cell:
        return Group(name=name, n=None if len(rows) else 0)
    ever, recent = features.counts[0][rows], features.counts[1][rows]
    visits = np.array([code.startswith("VISIT//") for code in features.codes])
    plain = np.array([not code.endswith("*") for code in features.codes])
    return Group(
        name=name,
        n=len(rows),
        age=_spread(features.age[rows]),
        history=_spread(features.history[rows]),
        visits=_spread(np.asarray(recent[:, np.flatnonzero(visits)].sum(axis=1)).ravel()),
        codes=_spread(np.asarray((ever[:, np.flatnonzero(plain)] > 0).sum(axis=1)).ravel()),
        sex=_shares(features.sex[rows]),
        site=_shares(features.site[rows]),
    )


def _spread(values: Floats) -> Spread | None:
    known = values[np.isfinite(values)].astype(np.float64)
    if len(known) < get_settings().min_cell:
        return None
    return Spread(mean=round(float(known.mean()), 4), sd=round(float(known.std(ddof=1)), 4))


def _shares(values: NDArray[np.str_]) -> tuple[Share, ...]:
    names, counts = np.unique(values, return_counts=True)
    told = not any(_small(int(n)) for n in counts)
    return tuple(
        Share(value=str(name), share=round(float(n / len(values)), 4) if told else None)
        for name, n in zip(names, counts, strict=True)
    )


def standardised_difference(left: Spread | None, right: Spread | None) -> float | None:
    """Difference of means over the root of the mean variance (Cohen's d, as balance tables have it; Austin 2009)."""
    if left is None or right is None or left.sd + right.sd == 0:
        return None
    return (left.mean - right.mean) / float(np.sqrt((left.sd**2 + right.sd**2) / 2))
