"""Erased patients stay away, though the source still holds them.

The log keeps a keyed hash of each erased subject; whoever has the list but not the key learns nothing from it. Rows of
those subjects are dropped as they arrive. An empty list costs nothing.
"""

from __future__ import annotations

import hmac

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ml.common.errors import ConfigError
from ml.common.files import read_json, write_json
from ml.extraction.log import log_directory
from ml.settings import get_settings

FILE = "suppressed.json"


def mark(subject_id: int) -> str:
    """Keyed hash of a subject, not the published pseudonym: HMAC-SHA256 of ``erased/<id>``.

    Raises:
        ConfigError: there is no key.
    """
    return hmac.digest(_key(), f"erased/{subject_id}".encode(), "sha256").hex()


def suppress(subject_id: int) -> None:
    """Keep a subject away from now on."""
    write_json(log_directory() / FILE, sorted({*suppressed(), mark(subject_id)}))


def suppressed() -> frozenset[str]:
    """Marks of all erased subjects."""
    path = log_directory() / FILE
    return frozenset(read_json(path)) if path.is_file() else frozenset()


def kept(subject_ids: npt.NDArray[np.int64], marks: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Which rows are not of an erased subject; shape as given."""
    distinct, inverse = np.unique(subject_ids, return_inverse=True)
    good = np.array([mark(int(number)) not in marks for number in distinct], bool)
    found: npt.NDArray[np.bool_] = good[inverse]
    return found


def without_suppressed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that are not of an erased subject."""
    marks = suppressed()
    return rows.filter(pl.Series(kept(rows["subject_id"].to_numpy(), marks))) if marks and rows.height else rows


def batch_without(batch: pa.RecordBatch, marks: frozenset[str]) -> pa.RecordBatch:
    """The rows of a batch that are not of an erased subject; every row has one."""
    return batch.filter(pa.array(kept(batch.column("subject_id").to_numpy(), marks)))


def _key() -> bytes:
    secret = get_settings().pseudonym_key
    if secret is None:
        raise ConfigError(
            "no key to know erased patients by", "set VIGIL_PSEUDONYM_KEY as it was when they were erased"
        )
    return secret.get_secret_value().encode()
