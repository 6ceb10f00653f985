"""Batches of events in, one Parquet file per shard out, with counts taken on the way. Memory is bounded."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

from ml.common.paths import HashingFile, new_file, open_new
from ml.extraction.log import CODES, FileRecord, shard_name, vital_name
from ml.extraction.routing import buckets
from ml.extraction.schema import BIRTH, DEATH, EVENT_SCHEMA
from ml.extraction.suppression import batch_without, suppressed
from ml.settings import get_settings
from ml.sources.mapping import OLD

ROW_GROUPS_IN_HAND = 8  # batches held before all shards are flushed: larger row groups, bounded memory
DAY_US = 86_400_000_000
DAYS_KEPT = 35
VITAL_CODES = pa.array([BIRTH, DEATH])
CODES_SCHEMA = pa.schema([("kind", pa.string()), ("code", pa.string()), ("rows", pa.int64())])


class EventFile:
    """One Parquet file of events and the digest of its bytes."""

    def __init__(self, path: UPath) -> None:
        self.rows = 0
        self.name = path.name
        self._file: HashingFile = open_new(path)
        # Codes repeat, keys do not: a dictionary for what repeats alone.
        self._writer = pq.ParquetWriter(
            self._file,
            EVENT_SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=["code", "text_value"],
            store_schema=False,
        )

    def write(self, table: pa.Table) -> None:
        """Append one row group."""
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.rows += table.num_rows

    def close(self) -> FileRecord:
        """Bring it to disk; its record."""
        self._writer.close()
        self._file.close()
        return FileRecord(self._file.sha256, self._file.bytes, self.rows)

    def abandon(self) -> None:
        """Give it up after an error."""
        self._file.abandon()


class ShardWriter:
    """Routes events to shards.

    Attributes:
        rows, unplaced, unmapped: counts by kind.
        vocabularies: counts by code vocabulary.
        removed: tombstones.
        files: digest, size and rows of every file; once the block has ended.
    """

    def __init__(self, directory: UPath, shards: int, batch_rows: int) -> None:
        self.rows: Counter[str] = Counter()
        self.vocabularies: Counter[str] = Counter()
        self.unplaced: Counter[str] = Counter()
        self.unmapped: Counter[str] = Counter()
        self.removed = 0
        self.files: dict[str, FileRecord] = {}
        self._days: Counter[int] = Counter()
        self._codes: Counter[tuple[str, str]] = Counter()
        self._directory, self._shards, self._in_hand = directory, shards, batch_rows * ROW_GROUPS_IN_HAND
        self._buffers: list[list[pa.RecordBatch]] = [[] for _ in range(shards)]
        self._buffered = 0
        self._open: dict[str, EventFile] = {}
        self._suppressed = suppressed()
        self._mapping = get_settings().icd9_to_icd10

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.files = self._finish()
                self._open.clear()
        finally:
            for file in self._open.values():
                file.abandon()

    def _finish(self) -> dict[str, FileRecord]:
        self._flush()
        records = {file.name: file.close() for file in self._open.values()}
        if self._codes:
            records[CODES] = self._write_codes()
        return dict(sorted(records.items()))

    def write(self, kind: str, batch: pa.RecordBatch) -> None:
        """Take the events of one batch."""
        batch = self._placeable(kind, batch)
        if self._suppressed and batch.num_rows:
            batch = batch_without(batch, self._suppressed)
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
        codes, removed = batch.column("code"), batch.column("removed")
        if tombstones := pc.sum(removed).as_py():
            self.removed += tombstones
            codes = codes.filter(pc.invert(removed))
        for code in pc.value_counts(codes).to_pylist():
            self.vocabularies[code["values"].split("//")[0]] += code["counts"]
            self._codes[kind, code["values"]] += code["counts"]
            if self._mapping and code["values"].startswith(OLD):  # what the mapping knows has its new code by now
                self.unmapped[kind] += code["counts"]
        days = batch.column("recorded_at").cast(pa.int64()).to_numpy() // DAY_US
        values, counts = np.unique(days, return_counts=True)
        self._days.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def _flush(self) -> None:
        for shard, batches in enumerate(self._buffers):
            if not batches:
                continue
            table = pa.Table.from_batches(batches)
            self._file(shard_name(shard)).write(table)
            vital = table.filter(pc.is_in(table.column("code"), VITAL_CODES))
            if vital.num_rows:
                self._file(vital_name(shard)).write(vital)
            batches.clear()
        self._buffered = 0

    def _file(self, name: str) -> EventFile:
        if name not in self._open:
            self._open[name] = EventFile(self._directory / name)
        return self._open[name]

    def _write_codes(self) -> FileRecord:
        """Rows by kind and code, tombstones left out: what drift is measured on."""
        kinds, codes = zip(*sorted(self._codes), strict=True)
        rows = [self._codes[key] for key in sorted(self._codes)]
        with new_file(self._directory / CODES) as file:
            pq.write_table(pa.table([kinds, codes, rows], schema=CODES_SCHEMA), file)
        return FileRecord(file.sha256, file.bytes, len(rows))
