"""Vocabulary and token stores of a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
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
from ml.common.progress import Progress
from ml.extraction import read_view
from ml.extraction.snapshot import Snapshot
from ml.sequences.codes import LEFT_OUT
from ml.sequences.store import StoreKey, is_current, open_store, store_path, write_store
from ml.sequences.tokens import COLUMNS, Sequences, tokenise
from ml.sequences.vocabulary import EMPTY, MINIMUM_COUNT, VALUE_BINS, Vocabulary, grow, load_vocabulary
from ml.settings import get_settings

log = logging.getLogger(__name__)


COUNTED = ("subject_id", "code", "numeric_value")  # columns of a view that the vocabulary is learned from


@dataclass(frozen=True)
class Counts:
    """What shards add to the vocabulary: events by code and finite numeric values by code."""

    events: Counter[str]
    values: dict[str, npt.NDArray[np.float32]]


def add_up(parts: Iterable[Counts]) -> Counts:
    """The counts of all shards, in any order; the values of a code come sorted."""
    events: Counter[str] = Counter()
    values: dict[str, list[npt.NDArray[np.float32]]] = {}
    for part in parts:
        events.update(part.events)
        for code, found in part.values.items():
            values.setdefault(code, []).append(found)
    return Counts(events, {code: np.sort(np.concatenate(values.pop(code))) for code in sorted(values)})


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
    stores = [(day, shard) for day in run.index_days for shard in range(run.snapshot.shards)]
    progress = Progress("sequences", len(stores))
    for done, (day, shard) in enumerate(stores, 1):
        path = store_path(run.path, day, shard)
        make_store(path, run.snapshot, day, shard, vocabulary)
        total += int(open_store(path).offsets[-1])
        progress.report(done, f"token stores, {total:,} tokens")
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
    salt, shards = get_settings().split_salt, range(run.snapshot.shards)
    counts = add_up(count_shard(read_view(run.snapshot, run.test_day, shard, COUNTED), salt) for shard in shards)
    if not counts.events:
        raise VigilError(
            f"no train-split patient has an event by {run.test_day}",
            "train on a later snapshot, or set a smaller VIGIL_INDEX_STEP",
        )
    made = grow(old or EMPTY, counts.events, counts.values, built_from)
    made.save(run.vocabulary)
    return made


def count_shard(view: pl.DataFrame, salt: str) -> Counts:
    """Counts of a view's train-split patients, from `COUNTED`; codes that are no features are not counted."""
    train = [subject for subject in view["subject_id"].unique() if split_of(subject, salt) == "train"]
    rows = view.filter(pl.col("subject_id").is_in(pl.Series(train, dtype=pl.Int64).implode()))
    feature = ~pl.col("code").cast(pl.String).str.contains(LEFT_OUT)
    counted = rows.group_by("code").len().filter(feature)
    valued = rows.filter(pl.col("numeric_value").is_finite()).group_by("code").agg("numeric_value").filter(feature)
    values = zip(valued["code"], valued["numeric_value"], strict=True)
    return Counts(Counter(dict(counted.iter_rows())), {code: v.cast(pl.Float32).to_numpy() for code, v in values})


def make_store(path: Path, snapshot: Snapshot, day: date, shard: int, vocabulary: Vocabulary) -> None:
    """Tokenise one shard at one day, unless that is done."""
    key = StoreKey(snapshot.digest, str(day), shard, snapshot.shards, vocabulary.digest)
    if not is_current(path, key):
        write_store(path, tokenise(read_view(snapshot, day, shard, COLUMNS), day, vocabulary), key)


def run_stores(run: TrainingRun, day: date, vocabulary: Vocabulary) -> Iterator[Sequences]:
    """The stores of a day, by shard."""
    for shard in range(run.snapshot.shards):
        yield open_store(store_path(run.path, day, shard), vocabulary.digest)
