"""Reconciliation: does the log still say what the source says?

A night takes what was recorded since the last one. It cannot see a row that the source deleted for good, overwrote in
silence, or committed late under an earlier moment. Here both sides are counted and hashed by table and cell of
subjects, the source by itself (``sql/cells.sql``); only the rows of cells that differ are read and compared.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import polars as pl
import psycopg2
from psycopg2 import sql

from ml.common.db import Connection, connect, fetch
from ml.common.errors import NotFoundError, SourceError
from ml.common.progress import Progress
from ml.extraction.corrections import waiting_rows, write_correction
from ml.extraction.lock import locked
from ml.extraction.log import Partition, committed_partitions
from ml.extraction.suppression import without_suppressed
from ml.extraction.view import COLUMNS, ROW, latest, read_rows
from ml.settings import Role, get_settings
from ml.sources import SourcePlan, open_source

log = logging.getLogger(__name__)

SQL = Path(__file__).parent / "sql"
CELLS = 256
GROUP = 16  # cells compared row by row at a time
KEY = ["subject_id", "source_key"]
COMPARED = ["time", "code", "numeric_value", "text_value", "visit_id"]
Cells = dict[tuple[str, int], tuple[int, int]]


@dataclass(frozen=True)
class TableDifference:
    """What differs in one table. Counts only.

    Attributes:
        table: first part of the source keys.
        source_rows, log_rows: rows now, on either side.
        deleted: rows of the log that the source has no longer.
        edited: rows whose content differs.
        missed: rows of the source, recorded by then, that the log never saw.
    """

    table: str
    source_rows: int
    log_rows: int
    deleted: int = 0
    edited: int = 0
    missed: int = 0

    @property
    def total(self) -> int:
        return self.deleted + self.edited + self.missed


@dataclass(frozen=True)
class Reconciliation:
    """The log against the source, as of the last committed day.

    Attributes:
        as_of: rows recorded by then were compared.
        tables: what was found.
        cells: cells compared by hash, and of them those that differed and were read row by row.
        correction: name of the correction written; None: nothing differs, or nothing was to be written.
        recorded_at: the moment that the corrections bear.
    """

    as_of: date
    tables: tuple[TableDifference, ...]
    cells: tuple[int, int]
    correction: str | None = None
    recorded_at: datetime | None = None

    @property
    def differences(self) -> int:
        return sum(table.total for table in self.tables)


@dataclass
class _Found:
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (table, what) → rows
    facts: list[pl.DataFrame] = field(default_factory=list)


def reconcile(*, write: bool = True) -> Reconciliation:
    """Compare log and source, and keep the differences as corrections that the next night takes in.

    Run again before that night, it finds nothing more: corrections that wait count as known.

    Args:
        write: false to look only.

    Raises:
        NotFoundError: nothing was ever committed.
        SourceError: the source cannot be read.
        RefusedError: another process writes the log.
    """
    with locked("reconcile") as still_locked:
        committed = committed_partitions()
        if not committed:
            raise NotFoundError("the event log is empty", "run a night first (DAG nightly)")
        last = committed[-1].recorded_to
        moment = _moment(last)
        try:
            source, found, cells = _compare(committed, last, moment)
        except psycopg2.Error as error:  # its message may quote a row
            raise SourceError(
                f"the source refused a query (SQLSTATE {error.pgcode or 'unknown'})", "look at the source's own log"
            ) from None
        still_locked()
        facts = pl.concat(found.facts) if found.facts else pl.DataFrame(schema=COLUMNS)
        correction = write_correction(facts, moment) if write and facts.height else None
    tables = tuple(_table(name, source, found.counts) for name in sorted({name for name, _ in found.counts}))
    return Reconciliation(last, tables, cells, correction.name if correction else None, moment if correction else None)


def _moment(last: date) -> datetime:
    """When the differences became known: now. A hospital whose calendar lies in the past (``calendar_end``) knows them
    from the first instant that no night has taken yet."""
    if get_settings().calendar_end is not None:
        return datetime.combine(last + timedelta(days=1), time.min)
    return datetime.now(UTC).replace(tzinfo=None)


def _compare(
    committed: Sequence[Partition], last: date, moment: datetime
) -> tuple[Mapping[str, int], _Found, tuple[int, int]]:
    settings, found = get_settings(), _Found()
    with connect(Role.EXTRACT, readonly=True, isolation="REPEATABLE READ") as connection:
        plan = open_source(settings.source).plan(connection, settings.source_schema)
        source, log_cells = _source_cells(connection, plan, last), _log_cells(committed, last)
        everything = sorted(source.keys() | log_cells.keys())
        # A mapping of codes is applied while extracting: hashes of mapped and unmapped codes cannot agree.
        differ = everything if settings.icd9_to_icd10 else [k for k in everything if source.get(k) != log_cells.get(k)]
        rows: Counter[str] = Counter()
        for cells, what in ((source, "source"), (log_cells, "log")):
            for (table, _), (count, _) in cells.items():
                found.counts[table, what] += count
                rows[table] += count if what == "source" else 0
        _drill_down(connection, plan, committed, last, differ, moment, found)
    return rows, found, (len(everything), len(differ))


def _source_cells(connection: Connection, plan: SourcePlan, last: date) -> Cells:
    template = (SQL / "cells.sql").read_text()
    cells: Cells = {}
    progress = Progress("reconcile", len(plan.kinds))
    for number, kind in enumerate(plan.kinds, 1):
        query = sql.SQL(template).format(events=kind.events(None, last), cells=sql.Literal(CELLS))
        for table, cell, rows, hashed in fetch(connection, query):
            before = cells.get((table, cell), (0, 0))
            cells[table, cell] = (before[0] + rows, before[1] + int(hashed))
        progress.report(number, f"tables hashed by the source, last {kind.kind}")
    return cells


def _log_cells(committed: Sequence[Partition], last: date) -> Cells:
    cells: Cells = {}
    for shard in range(committed[0].shards):
        for key, (rows, hashed) in hash_cells(_log_view(committed, last, shard)).items():
            before = cells.get(key, (0, 0))
            cells[key] = (before[0] + rows, before[1] + hashed)
    return cells


def hash_cells(rows: pl.DataFrame) -> Cells:
    """Rows and hash by (table, cell), as ``sql/cells.sql`` gives them."""
    import duckdb

    numbers = rows["numeric_value"]
    bits = pl.Series("bits", numbers.fill_null(0).to_numpy().view("uint32"))
    hashed = rows.with_columns(pl.when(numbers.is_not_null()).then(bits).alias("bits"))
    with duckdb.connect() as engine:
        engine.execute("set threads to 1; set timezone = 'UTC'")
        engine.register("rows", hashed.to_arrow())
        query = (SQL / "log_cells.sql").read_text()
        return {(t, c): (n, int(h)) for t, c, n, h in engine.execute(query, {"cells": CELLS}).fetchall()}


def _log_view(committed: Sequence[Partition], last: date, shard: int) -> pl.DataFrame:
    """What the log holds: also what quality set aside, and the corrections that wait."""
    from ml.extraction.routing import buckets

    rows = read_rows(committed, last, shard, quarantined=True)
    more = waiting_rows(committed)
    mine = buckets(more["subject_id"].to_numpy()) % committed[0].shards == shard
    rows = latest(pl.concat([rows, more.filter(pl.Series(mine))]))
    return rows.filter(~pl.col("removed")).select(list(COLUMNS))


def _drill_down(
    connection: Connection,
    plan: SourcePlan,
    committed: Sequence[Partition],
    last: date,
    differ: Sequence[tuple[str, int]],
    moment: datetime,
    found: _Found,
) -> None:
    tables, cells = {table for table, _ in differ}, sorted({cell for _, cell in differ})
    progress = Progress("reconcile", len(cells))
    for start in range(0, len(cells), GROUP):
        group = cells[start : start + GROUP]
        there = pl.concat([pl.DataFrame(schema=COLUMNS), *_source_rows(connection, plan, last, group)])
        there = without_suppressed(there)
        there = latest(there.with_columns(pl.col("source_key").hash().alias(ROW))).filter(~pl.col("removed"))
        here = pl.concat([_of_cells(_log_view(committed, last, s), group) for s in range(committed[0].shards)])
        for table in sorted(tables):
            compare_rows(table, _of_table(there, table), _of_table(here, table), moment, found)
        progress.report(start + len(group), "cells compared row by row")


def _source_rows(connection: Connection, plan: SourcePlan, last: date, group: Sequence[int]) -> Iterator[pl.DataFrame]:
    from ml.extraction.stream import read_kinds, share_snapshot

    template = (SQL / "rows_of_cells.sql").read_text()
    wanted = sql.SQL(", ").join(map(sql.Literal, group))
    queries = {
        kind.kind: sql.SQL(template)
        .format(events=kind.events(None, last), cells=sql.Literal(CELLS), wanted=wanted)
        .as_string(connection)
        for kind in plan.kinds
    }
    for _, batch in read_kinds(queries, share_snapshot(connection)):
        rows = pl.DataFrame(batch)
        yield rows.filter(pl.col("subject_id").is_not_null(), pl.col("source_key").is_not_null()).select(list(COLUMNS))


def compare_rows(table: str, there: pl.DataFrame, here: pl.DataFrame, moment: datetime, found: _Found) -> None:
    """Add the differences of one table, and the facts that mend them."""
    deleted = here.join(there, on=KEY, how="anti")
    missed = there.join(here, on=KEY, how="anti")
    pairs = there.join(here, on=KEY, suffix="_log")
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_log")) for name in COMPARED)
    edited = pairs.filter(~same).select(there.columns)
    for what, rows in (("deleted", deleted), ("edited", edited), ("missed", missed)):
        if rows.height:
            found.counts[table, what] += rows.height
            facts = rows.with_columns(recorded_at=pl.lit(moment, pl.Datetime("us")), removed=pl.lit(what == "deleted"))
            found.facts.append(facts.select(list(COLUMNS)))


def _of_table(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    return rows.filter(pl.col("source_key").str.starts_with(f"{table}/"))


def _of_cells(rows: pl.DataFrame, group: Sequence[int]) -> pl.DataFrame:
    return rows.filter((pl.col("subject_id") % CELLS).is_in(list(group)))


def _table(name: str, source: Mapping[str, int], counts: Mapping[tuple[str, str], int]) -> TableDifference:
    return TableDifference(
        name,
        source.get(name, 0),
        counts.get((name, "log"), 0),
        *(counts.get((name, what), 0) for what in ("deleted", "edited", "missed")),
    )
