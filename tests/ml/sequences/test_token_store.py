"""Token stores: whole or absent whatever dies, reused for equal inputs alone, refused when damaged."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import fields, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.common.errors import VigilError
from ml.extraction import read_view
from ml.sequences import make_store, open_store, tokenise
from ml.sequences.store import StoreKey, is_current, write_store
from ml.sequences.tokens import Sequences
from ml.sequences.vocabulary import EMPTY, grow
from tests.ml.synthetic_log import commit, deployment, make_events

KEY = StoreKey("snapshot", "2024-06-30", 0, 4, "vocabulary")
KILLED = 9


def store(first: int, subjects: int = 3) -> Sequences:
    column = np.arange(first, first + 2 * subjects, dtype=np.int32)
    ids, offsets = np.arange(subjects, dtype=np.int64), np.arange(0, 2 * subjects + 1, 2, dtype=np.int64)
    now, stays = np.full(subjects, 19_000, np.int32), np.zeros(subjects, bool)
    return Sequences(ids, offsets, column, column, column, column, now, stays)


def same(one: Sequences, other: Sequences) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Sequences))


def dies_at(step: int, path: Path, sequences: Sequences, key: StoreKey) -> bool:
    """Write a store in a child process that dies at its ``step``-th access to the file system; False if it lived."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    try:
        accesses = 0

        def count(event: str, _: object) -> None:
            nonlocal accesses
            accesses += event == "open" or event.startswith(("os.", "shutil.", "tempfile."))
            if accesses == step:
                os._exit(KILLED)

        sys.addaudithook(count)
        write_store(path, sequences, key)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("before", [False, True])
def test_a_writer_killed_at_any_access_to_the_disk_leaves_a_whole_store_or_none(tmp_path: Path, before: bool) -> None:
    old, new, new_key = store(0), store(100, subjects=5), replace(KEY, snapshot="next")
    write_store(tmp_path / "old", old, KEY)
    seen, step, lived = set(), 0, False
    while not lived:
        step += 1
        path = tmp_path / str(step) / "0"
        if before:
            shutil.copytree(tmp_path / "old", path)
        lived = not dies_at(step, path, new, new_key)
        found = open_store(path) if (path / "manifest.json").exists() else None
        current = is_current(path, new_key)
        assert found is None or same(found, new if current else old)
        seen.add("absent" if found is None else "new" if current else "old")
        if not step % 8:
            write_store(path, new, new_key)
            assert same(open_store(path), new)
    assert current
    assert step > 30
    assert seen == ({"absent", "old", "new"} if before else {"absent", "new"})


def test_what_a_killed_writer_left_is_removed_a_day_later(tmp_path: Path) -> None:
    path = tmp_path / "0"
    assert dies_at(12, path, store(0), KEY)
    (left,) = tmp_path.iterdir()
    write_store(path, store(0), KEY)
    assert left.exists()  # it may be another writer's, still at work
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    write_store(path, store(0), KEY)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "other",
    [
        {"snapshot": "next"},
        {"day": "2023-06-30"},
        {"shard": 1},
        {"shards": 8},
        {"vocabulary": "grown"},
        {"tokeniser": 0},
    ],
)
def test_a_store_is_current_for_the_very_inputs_it_was_made_from(tmp_path: Path, other: dict[str, str | int]) -> None:
    write_store(tmp_path / "0", store(0), KEY)
    assert is_current(tmp_path / "0", KEY)
    assert not is_current(tmp_path / "0", replace(KEY, **other))  # type: ignore[arg-type]


def test_a_store_is_made_anew_when_the_log_is_sharded_anew(tmp_path: Path) -> None:
    events, path, day = make_events(60, 15), tmp_path / "store", date(2023, 6, 30)
    subjects = []
    for shards in (2, 1):  # equal rows, hence an equal digest
        with deployment(tmp_path / str(shards), index_days="2"):
            make_store(path, commit(events, shards=shards), day, 0, grow(EMPTY, {"ICD10CM//I10": 9}, {}))
            subjects.append(open_store(path).subjects.size)
    assert 0 < subjects[0] < subjects[1] == 60


def test_a_store_of_nobody_is_written_and_read(tmp_path: Path) -> None:
    empty = pl.DataFrame(
        schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    )
    write_store(tmp_path / "0", tokenise(empty, date(2024, 6, 30), grow(EMPTY, {}, {})), KEY)
    assert open_store(tmp_path / "0").offsets.tolist() == [0]


@pytest.mark.parametrize("name", [field.name for field in fields(Sequences)])
def test_a_damaged_store_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "0"
    write_store(path, store(0), KEY)
    np.save(path / f"{name}.npy", getattr(store(0, subjects=2), name))
    with pytest.raises(VigilError, match="damaged: remove that folder"):
        open_store(path)
    (path / f"{name}.npy").write_bytes(b"")
    with pytest.raises(VigilError, match="damaged"):
        open_store(path)


def test_a_store_holds_what_the_whole_view_gives(tmp_path: Path) -> None:
    with deployment(tmp_path, index_days="2"):
        snapshot, path = commit(make_events(60, 15), shards=2), tmp_path / "store"
        vocabulary = grow(EMPTY, {"ICD10CM//I10": 9, "GENDER//F": 9}, {})
        make_store(path, snapshot, date(2023, 6, 30), 1, vocabulary)
        assert same(
            open_store(path), tokenise(read_view(snapshot, date(2023, 6, 30), 1), date(2023, 6, 30), vocabulary)
        )
