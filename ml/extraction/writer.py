"""Batches of events in, one Parquet file per shard out, with counts taken on the way. Memory is bounded."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.common.files import sha256_file
from ml.extraction.log import FileRecord, shard_name
from ml.extraction.routing import buckets
from ml.extraction.schema import EVENT_SCHEMA

ROW_GROUPS_IN_HAND = 8  # batches held before all shards are flushed: larger row groups, bounded memory
DAY_US = 86_400_000_000
DAYS_KEPT = 35


class ShardWriter:
    """Routes events to shards.

    Attributes:
        rows, vocabularies, unplaced: counts by kind, code vocabulary and kind.
        removed: tombstones.
    """

    def __init__(self, directory: Path, shards: int, batch_rows: int) -> None:
        self.rows: Counter[str] = Counter()
        self.vocabularies: Counter[str] = Counter()
        self.unplaced: Counter[str] = Counter()
        self.removed = 0
        self._days: Counter[int] = Counter()
        self._directory, self._shards, self._in_hand = directory, shards, batch_rows * ROW_GROUPS_IN_HAND
        self._buffers: list[list[pa.RecordBatch]] = [[] for _ in range(shards)]
        self._buffered = 0
        self._writers: dict[int, pq.ParquetWriter] = {}
        self._written: Counter[int] = Counter()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        for writer in self._writers.values():
            writer.close()

    def write(self, kind: str, batch: pa.RecordBatch) -> None:
        """Take the events of one batch."""
        batch = self._placeable(kind, batch)
        if not batch.num_rows:
            return
        self._count(kind, batch)
        shard = buckets(batch.column("subject_id").to_numpy()) % self._shards
        ordered = batch.take(pa.array(np.argsort(shard, kind="stable")))
        ends = np.cumsum(np.bincount(shard, minlength=self._shards))
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if end > start:
                self._buffers[number].append(ordered.slice(start, end - start))
        self._buffered += batch.num_rows
        if self._buffered >= self._in_hand:
            self._flush()

    def files(self) -> dict[str, FileRecord]:
        """Digest, size and rows of every file; after the writer is closed."""
        paths = {shard: self._directory / shard_name(shard) for shard in sorted(self._writers)}
        return {
            path.name: FileRecord(sha256_file(path), path.stat().st_size, self._written[shard])
            for shard, path in paths.items()
        }

    def days(self) -> dict[str, int]:
        """Events by recorded day, the last days only."""
        last = max(self._days, default=0)
        recent = {day: rows for day, rows in self._days.items() if day > last - DAYS_KEPT}
        return {str(date(1970, 1, 1) + timedelta(days=day)): rows for day, rows in sorted(recent.items())}

    def _placeable(self, kind: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Events that have a person and a key; the others are counted."""
        if not (batch.column("subject_id").null_count or batch.column("source_key").null_count):
            return batch
        kept = batch.filter(pc.and_(pc.is_valid(batch.column("subject_id")), pc.is_valid(batch.column("source_key"))))
        self.unplaced[kind] += batch.num_rows - kept.num_rows
        return kept

    def _count(self, kind: str, batch: pa.RecordBatch) -> None:
        self.rows[kind] += batch.num_rows
        self.removed += pc.sum(batch.column("removed")).as_py() or 0
        for code in pc.value_counts(batch.filter(pc.invert(batch.column("removed"))).column("code")).to_pylist():
            self.vocabularies[code["values"].split("//")[0]] += code["counts"]
        days = batch.column("recorded_at").cast(pa.int64()).to_numpy() // DAY_US
        values, counts = np.unique(days, return_counts=True)
        self._days.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def _flush(self) -> None:
        for shard, batches in enumerate(self._buffers):
            if not batches:
                continue
            if shard not in self._writers:
                self._writers[shard] = pq.ParquetWriter(
                    self._directory / shard_name(shard),
                    EVENT_SCHEMA,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=["code", "text_value"],
                )
            table = pa.Table.from_batches(batches)
            self._writers[shard].write_table(table, row_group_size=max(1, table.num_rows))
            self._written[shard] += table.num_rows
            batches.clear()
        self._buffered = 0
