"""The token store: one folder per (index day, shard), flat arrays memory-mapped, nothing padded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np

from ml.common.errors import VigilError
from ml.common.files import new_directory, read_json, write_json
from ml.sequences.tokens import Sequences


@dataclass(frozen=True)
class StoreKey:
    """What a store was made from; a store with another key is made again."""

    snapshot: str
    day: str
    shard: int
    vocabulary: str


def store_path(run_path: Path, day: date, shard: int) -> Path:
    """Where a run keeps the sequences of a day and shard."""
    return run_path / "sequences" / str(day) / str(shard)


def write_store(path: Path, sequences: Sequences, key: StoreKey) -> None:
    """Write a store whole."""
    with new_directory(path) as working:
        for field in fields(Sequences):
            np.save(working / f"{field.name}.npy", getattr(sequences, field.name), allow_pickle=False)
        write_json(working / "manifest.json", {**key.__dict__, "subjects": int(sequences.subjects.size)})


def is_current(path: Path, key: StoreKey) -> bool:
    """Whether a finished store with this key is there."""
    manifest = path / "manifest.json"
    return manifest.exists() and all(read_json(manifest).get(k) == v for k, v in key.__dict__.items())


def open_store(path: Path, vocabulary_digest: str | None = None) -> Sequences:
    """Map a store into memory.

    Raises:
        VigilError: it is absent, or was made with another vocabulary.
    """
    manifest = path / "manifest.json"
    if not manifest.exists():
        raise VigilError(f"there are no sequences in {path}", "prepare the sequences of this run first")
    if vocabulary_digest is not None and read_json(manifest)["vocabulary"] != vocabulary_digest:
        raise VigilError(f"the sequences in {path} were made with another vocabulary", "prepare the sequences again")
    return Sequences(**{f.name: np.load(path / f"{f.name}.npy", mmap_mode="r") for f in fields(Sequences)})
