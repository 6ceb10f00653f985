"""A digest of what a view says, independent of partitions, shards and Parquet's bytes.

Per fixed subject bucket: SHA-256 over the columns of the bucket's rows in canonical order. Over all: SHA-256 of the 256
bucket digests. A column's bytes are, for numbers, a byte per value that tells whether it is there, then the values
little-endian with 0 where it is not; for text, the lengths in UTF-8 bytes as int64 (-1: null), then the bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from ml.common.progress import Progress
from ml.extraction.log import Partition
from ml.extraction.routing import buckets
from ml.extraction.schema import BUCKETS
from ml.extraction.view import view_of

DIGESTED = ["subject_id", "time", "code", "numeric_value", "text_value", "visit_id", "recorded_at", "source_key"]


@dataclass(frozen=True)
class ViewDigest:
    """Digest and counts of a view: rows by code vocabulary, subjects."""

    digest: str
    rows: dict[str, int]
    subjects: int


def digest_view(partitions: Sequence[Partition], as_of: date, shards: int) -> ViewDigest:
    """Digest and count the view at a day, one shard at a time."""
    digests = [hashlib.sha256().digest()] * BUCKETS
    rows: Counter[str] = Counter()
    subjects = 0
    progress = Progress("digest", shards)
    for shard in range(shards):
        view = view_of(partitions, as_of, shard)
        digests[shard::shards] = bucket_digests(view, range(shard, BUCKETS, shards))
        rows.update(vocabulary_counts(view))
        subjects += view["subject_id"].n_unique()
        progress.report(shard + 1, "shards")
    return ViewDigest(hashlib.sha256(b"".join(digests)).hexdigest(), dict(sorted(rows.items())), subjects)


def vocabulary_counts(view: pl.DataFrame) -> dict[str, int]:
    """Rows by the vocabulary of their code."""
    codes = view.group_by("code").len()
    counts = codes.group_by(pl.col("code").str.split("//").list.first().alias("vocabulary")).agg(pl.col("len").sum())
    return dict(counts.iter_rows())


def bucket_digests(view: pl.DataFrame, wanted: Iterable[int]) -> list[bytes]:
    """SHA-256 of each wanted bucket's rows; ``view`` is sorted canonically."""
    bucket = buckets(view["subject_id"].to_numpy())
    order = np.argsort(bucket, kind="stable")
    columns = [_Column(view[name].gather(order)) for name in DIGESTED]
    numbers = list(wanted)
    starts = np.searchsorted(bucket[order], numbers, side="left")
    ends = np.searchsorted(bucket[order], numbers, side="right")
    return [_hash(columns, int(start), int(end)) for start, end in zip(starts, ends, strict=True)]


def _hash(columns: Sequence[_Column], start: int, end: int) -> bytes:
    if start == end:
        return hashlib.sha256().digest()
    state = hashlib.sha256(np.int64(end - start).tobytes())
    for column in columns:
        for part in column.parts(start, end):
            state.update(part)
    return state.digest()


def _text_bytes(series: pl.Series) -> memoryview:
    """The UTF-8 bytes of all values, one after another, without a copy."""
    text = series.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets, data = text.buffers()
    if data is None:
        return memoryview(b"")
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]


class _Column:
    """Canonical bytes of slices of a column."""

    def __init__(self, series: pl.Series) -> None:
        self._text = series.dtype == pl.String
        present = series.is_not_null().to_numpy()
        if self._text:
            lengths = series.str.len_bytes().cast(pl.Int64).fill_null(0).to_numpy()
            self._offsets = np.concatenate([[0], np.cumsum(lengths)])
            self._first: Any = np.ascontiguousarray(np.where(present, lengths, -1))
            self._second: Any = _text_bytes(series.fill_null(""))
            return
        values = series.fill_null(0) if series.dtype.is_numeric() else series.cast(pl.Int64).fill_null(0)
        self._first = present.astype(np.uint8)
        self._second = np.array(values.to_numpy())
        if series.dtype.is_float():  # one zero and one NaN, whatever their bits were
            self._second += 0.0
            self._second[np.isnan(self._second)] = np.nan

    def parts(self, start: int, end: int) -> tuple[Any, Any]:
        if self._text:
            first, last = self._offsets[start], self._offsets[end]
            return self._first[start:end].tobytes(), self._second[first:last].tobytes()
        return self._first[start:end].tobytes(), self._second[start:end].tobytes()
