"""Vocabulary and token stores of a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.cohorts.runs import TrainingRun
from ml.cohorts.splits import split_of
from ml.common.errors import VigilError
from ml.common.files import sha256_json
from ml.extraction import read_view
from ml.extraction.snapshot import Snapshot
from ml.sequences.store import StoreKey, is_current, open_store, store_path, write_store
from ml.sequences.tokens import LEFT_OUT, Sequences, tokenise
from ml.sequences.vocabulary import EMPTY, MINIMUM_COUNT, VALUE_BINS, Vocabulary, grow, load_vocabulary
from ml.settings import get_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """What one shard adds to the vocabulary: events by code and numeric values by code. Shards add up."""

    events: Counter[str]
    values: dict[str, npt.NDArray[np.float32]]

    def __add__(self, other: Counts) -> Counts:
        names = self.values.keys() | other.values.keys()
        empty = np.empty(0, np.float32)
        values = {n: np.concatenate((self.values.get(n, empty), other.values.get(n, empty))) for n in sorted(names)}
        return Counts(self.events + other.events, values)


def prepare(run: TrainingRun, initial: Path | None = None) -> dict[str, Any]:
    """Make ``run.vocabulary`` and the token stores of every index day and shard; what is finished is kept.

    Args:
        run: the run; vocabulary and bins are learned from its train-split patients at t1.
        initial: folder of a model to start from: its vocabulary is grown, so its ids keep their meaning.

    Returns:
        Size of the vocabulary, its digest and the tokens over all stores: nothing of a patient.
    """
    vocabulary = make_vocabulary(run, initial)
    total = 0
    for day in run.index_days:
        for shard in range(run.snapshot.shards):
            path = store_path(run.path, day, shard)
            make_store(path, run.snapshot, day, shard, vocabulary)
            total += int(open_store(path).offsets[-1])
    log.info(
        "sequences: %d tokens in the vocabulary, %d tokens over %d days", vocabulary.size, total, len(run.index_days)
    )
    return {"vocabulary": vocabulary.size, "digest": vocabulary.digest, "tokens": total}


def make_vocabulary(run: TrainingRun, initial: Path | None = None) -> Vocabulary:
    """Learn or grow the vocabulary, or read it where it is already made from the same."""
    old = load_vocabulary(initial / "vocabulary.json") if initial else None
    inputs = {
        "snapshot": run.snapshot.digest,
        "day": str(run.test_day),
        "initial": old.digest if old else None,
        "salt": get_settings().split_salt,
        "rules": [MINIMUM_COUNT, VALUE_BINS],
    }
    built_from = sha256_json(inputs)
    if run.vocabulary.exists():
        found = load_vocabulary(run.vocabulary)
        if found.built_from == built_from:
            return found
    counts = Counts(Counter(), {})
    for shard in range(run.snapshot.shards):
        counts += count_shard(read_view(run.snapshot, run.test_day, shard), get_settings().split_salt)
    if not counts.events:
        raise VigilError(
            f"no train-split patient has an event by {run.test_day}",
            "train on a later snapshot, or set a smaller VIGIL_INDEX_STEP",
        )
    made = grow(old or EMPTY, counts.events, counts.values, built_from)
    made.save(run.vocabulary)
    return made


def count_shard(view: pl.DataFrame, salt: str) -> Counts:
    """Counts of a view's train-split patients; codes that are no features are not counted."""
    ids = view["subject_id"].unique()
    train = pl.Series([subject for subject in ids if split_of(subject, salt) == "train"], dtype=pl.Int64)
    rows = view.filter(pl.col("subject_id").is_in(train.implode()))
    by_code = rows.group_by("code").agg(
        n=pl.len(), values=pl.col("numeric_value").filter(pl.col("numeric_value").is_finite())
    )
    by_code = by_code.filter(~pl.col("code").str.contains(LEFT_OUT)).sort("code")
    events = Counter(dict(by_code.select("code", "n").iter_rows()))
    valued = by_code.filter(pl.col("values").list.len() > 0)
    values = {code: np.sort(np.array(v, np.float32)) for code, v in valued.select("code", "values").iter_rows()}
    return Counts(events, values)


def make_store(path: Path, snapshot: Snapshot, day: date, shard: int, vocabulary: Vocabulary) -> None:
    """Tokenise one shard at one day, unless that is done."""
    key = StoreKey(snapshot.digest, str(day), shard, vocabulary.digest)
    if not is_current(path, key):
        write_store(path, tokenise(read_view(snapshot, day, shard), day, vocabulary), key)


def run_stores(run: TrainingRun, day: date, vocabulary: Vocabulary) -> Iterator[Sequences]:
    """The stores of a day, by shard."""
    for shard in range(run.snapshot.shards):
        yield open_store(store_path(run.path, day, shard), vocabulary.digest)
