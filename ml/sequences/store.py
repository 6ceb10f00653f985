"""The token store: one folder per (index day, shard), flat arrays memory-mapped, nothing padded."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np

from ml.common.errors import VigilError
from ml.common.files import new_directory, read_json, write_json
from ml.sequences.tokens import Sequences

TOKENISER = 2  # to be raised with every change to what `tokenise` makes of the same view
ABANDONED = 24 * 3600.0  # seconds after which an unfinished folder is taken for a killed process's


@dataclass(frozen=True)
class StoreKey:
    """What a store was made from; a store with another key is made again.

    Attributes:
        snapshot: digest of the snapshot: of its rows, whichever way they are partitioned or sharded.
        day: the index day.
        shard: of how many ``shards``.
        vocabulary: its digest.
        tokeniser: the version of the rules.
    """

    snapshot: str
    day: str
    shard: int
    shards: int
    vocabulary: str
    tokeniser: int = TOKENISER


def store_path(run_path: Path, day: date, shard: int) -> Path:
    """Where a run keeps the sequences of a day and shard."""
    return run_path / "sequences" / str(day) / str(shard)


def write_store(path: Path, sequences: Sequences, key: StoreKey) -> None:
    """Write a store whole: a process killed in between leaves what was there before, or nothing."""
    with new_directory(path) as working:
        for field in fields(Sequences):
            np.save(working / f"{field.name}.npy", getattr(sequences, field.name), allow_pickle=False)
        size = {"subjects": int(sequences.subjects.size), "tokens": int(sequences.tokens.size)}
        write_json(working / "manifest.json", {**asdict(key), **size})
    _clear_abandoned(path)


def is_current(path: Path, key: StoreKey) -> bool:
    """Whether a finished store with this key is there."""
    manifest = path / "manifest.json"
    return manifest.exists() and all(read_json(manifest).get(k) == v for k, v in asdict(key).items())


def open_store(path: Path, vocabulary_digest: str | None = None) -> Sequences:
    """Map a store into memory.

    Raises:
        VigilError: it is absent, damaged, or was made with another vocabulary.
    """
    manifest = path / "manifest.json"
    if not manifest.exists():
        raise VigilError(f"there are no sequences in {path}", "prepare the sequences of this run first")
    found = read_json(manifest)
    if vocabulary_digest is not None and found["vocabulary"] != vocabulary_digest:
        raise VigilError(f"the sequences in {path} were made with another vocabulary", "prepare the sequences again")
    try:
        store = Sequences(**{f.name: np.load(path / f"{f.name}.npy", mmap_mode="r") for f in fields(Sequences)})
    except (OSError, ValueError, EOFError):
        raise _damaged(path) from None
    arrays = (store.tokens, store.ages, store.days, store.visits)
    if {array.size for array in arrays} != {found["tokens"]} or {
        store.offsets.size,
        store.now.size + 1,
        store.long_stays.size + 1,
    } != {store.subjects.size + 1}:
        raise _damaged(path)
    return store


def _damaged(path: Path) -> VigilError:
    return VigilError(f"the sequences in {path} are damaged", "remove that folder and prepare the sequences again")


def _clear_abandoned(path: Path) -> None:
    """Remove what killed processes left beside a store."""
    for folder in path.parent.glob(f".{path.name}.*"):
        if time.time() - folder.stat().st_mtime > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)
