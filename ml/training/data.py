"""What each stage trains on: token stores and labels of a run, honouring splits and index days."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.cohorts import TrainingRun, read_labels, split_all
from ml.cohorts.splits import Split, check_disjoint
from ml.common.errors import VigilError
from ml.sequences import Item, Sequences, Vocabulary, run_stores
from ml.settings import get_settings

MINIMUM_TOKENS = 4  # a shorter sequence has nothing to learn from


@dataclass(frozen=True)
class Labelled:
    """Sequences at index days with their labels.

    Attributes:
        source: the sequences.
        labels: ``[n, outcomes]`` 1, 0, or NaN where the subject is not eligible for the outcome on that day.
        subjects: ``[n]``.
        index: ``[n]`` k of the index day t_k.
    """

    source: Item
    labels: npt.NDArray[np.float32]
    subjects: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]


def pretraining_data(run: TrainingRun, vocabulary: Vocabulary, split: Split = "train") -> Item:
    """Patients of a split in the view at t1.

    Raises:
        VigilError: there is none with enough events.
    """
    salt = get_settings().split_salt
    stores = list(run_stores(run, run.test_day, vocabulary))
    chosen = []
    for number, store in enumerate(stores):
        splits = split_all(store.subjects.tolist(), salt)
        mine = np.array([splits[subject] == split for subject in store.subjects.tolist()], bool)
        rows = np.flatnonzero(mine & (store.lengths >= MINIMUM_TOKENS))
        chosen.append((np.full(rows.size, number), rows))
    item = Item(stores, np.concatenate([c[0] for c in chosen]), np.concatenate([c[1] for c in chosen]))
    if not item.row.size:
        raise VigilError(f"no {split}-split patient has enough events to pretrain on", "train on a later snapshot")
    return item


def labelled_data(
    run: TrainingRun, vocabulary: Vocabulary, tasks: tuple[str, ...], splits: tuple[Split, ...], days: tuple[date, ...]
) -> Labelled:
    """Subjects of some splits at some index days that are eligible for at least one task.

    Raises:
        VigilError: labels are absent, or a split is broken.
    """
    wide = _wide(run, tasks, splits)
    parts: list[Labelled] = []
    stores: list[Sequences] = []
    for day in days:
        k = run.index_days.index(day) + 1
        today = wide.filter(pl.col("index") == k)
        for store in run_stores(run, day, vocabulary):
            parts.append(_rows_of(store, len(stores), today, tasks, k))
            stores.append(store)
    item = Item(stores, np.concatenate([p.source.store for p in parts]), np.concatenate([p.source.row for p in parts]))
    return Labelled(
        item,
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.subjects for p in parts]),
        np.concatenate([p.index for p in parts]),
    )


def _wide(run: TrainingRun, tasks: tuple[str, ...], splits: tuple[Split, ...]) -> pl.DataFrame:
    """One row per subject and index day, one float column per task."""
    frames = []
    for task in tasks:
        frame = read_labels(run, task)
        check_disjoint(frame)
        frames.append(frame.filter(pl.col("split").is_in(splits)).with_columns(task=pl.lit(task)))
    long = pl.concat(frames).with_columns(pl.col("boolean_value").cast(pl.Float32))
    wide = long.pivot("task", index=["subject_id", "index"], values="boolean_value").sort("subject_id", "index")
    absent = [pl.lit(None, dtype=pl.Float32).alias(task) for task in tasks if task not in wide.columns]
    return wide.with_columns(absent)


def _rows_of(store: Sequences, number: int, wide: pl.DataFrame, tasks: tuple[str, ...], k: int) -> Labelled:
    wanted = wide.filter(pl.col("subject_id").is_in(pl.Series(np.asarray(store.subjects)).implode()))
    subjects = wanted["subject_id"].to_numpy()
    rows = np.searchsorted(store.subjects, subjects)
    labels = wanted.select(pl.col(task).fill_null(float("nan")) for task in tasks).to_numpy().astype(np.float32)
    source = Item([store], np.full(rows.size, number), rows)
    return Labelled(source, labels.reshape(rows.size, len(tasks)), subjects, np.full(rows.size, k))
