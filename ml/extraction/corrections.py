"""Corrections: facts that a reconciliation found, waiting in the log for the next night to take them in.

So quality judges them like any other rows, and no snapshot changes. A correction is a Parquet file of events and a
JSON file beside it, written last, without which it does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl
import pyarrow as pa
from upath import UPath

from ml.common.files import read_json, write_json
from ml.common.paths import is_local, polars_source
from ml.extraction.log import Partition, log_directory
from ml.extraction.schema import EVENT_SCHEMA
from ml.extraction.view import COLUMNS, ROW
from ml.extraction.writer import EventFile


@dataclass(frozen=True)
class Correction:
    """One reconciliation's facts.

    Attributes:
        name: of its files.
        recorded_at: when it became known that the log was wrong.
        rows: number of facts.
    """

    name: str
    recorded_at: datetime
    rows: int

    @property
    def file(self) -> UPath:
        return _directory() / f"{self.name}.parquet"

    def read(self) -> pl.DataFrame:
        """Its events, in the event schema."""
        return pl.read_parquet(**polars_source(self.file)).select(list(COLUMNS))


def write_correction(rows: pl.DataFrame, recorded_at: datetime) -> Correction:
    """Keep facts for the next night; ``rows`` has the columns of the event schema, all recorded at one moment."""
    correction = Correction(recorded_at.strftime("%Y-%m-%dT%H%M%S.%f"), recorded_at, rows.height)
    if is_local(_directory()):
        _directory().mkdir(parents=True, exist_ok=True)
    _replace(correction, rows)
    return correction


def rewrite_correction(correction: Correction, rows: pl.DataFrame) -> None:
    """Replace its facts."""
    _replace(Correction(correction.name, correction.recorded_at, rows.height), rows)


def corrections() -> list[Correction]:
    """All corrections ever written, oldest first."""
    found = []
    for path in sorted(_directory().glob("*.json"), key=lambda path: path.name):
        values = read_json(path)
        found.append(Correction(values["name"], datetime.fromisoformat(values["recorded_at"]), values["rows"]))
    return found


def waiting(committed: Iterable[Partition], as_of: date | None = None) -> list[Correction]:
    """Corrections that no committed partition has taken in; those known by the end of ``as_of``."""
    taken = {name for partition in committed for name in partition.corrections}
    return [c for c in corrections() if c.name not in taken and (as_of is None or c.recorded_at.date() <= as_of)]


def waiting_rows(committed: Iterable[Partition]) -> pl.DataFrame:
    """Events of the corrections that wait, as ``ml.extraction.view.read_rows`` gives those of the log."""
    empty = pl.DataFrame(schema=COLUMNS)
    rows = pl.concat([empty, *(correction.read() for correction in waiting(committed))])
    return rows.with_columns(pl.col("source_key").hash().alias(ROW))


def batches_by_kind(correction: Correction) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Its events for the writer, by kind of record."""
    rows = correction.read().with_columns(kind=pl.col("source_key").str.extract(r"^([^/]*)/").fill_null("unknown"))
    for (kind,), part in sorted(rows.partition_by("kind", as_dict=True, include_key=False).items()):
        for batch in part.to_arrow().cast(EVENT_SCHEMA).to_batches():
            yield str(kind), batch


def _replace(correction: Correction, rows: pl.DataFrame) -> None:
    file = EventFile(correction.file)
    try:
        file.write(rows.select(list(COLUMNS)).to_arrow().cast(EVENT_SCHEMA))
        file.close()
    except BaseException:
        file.abandon()
        raise
    values = {"name": correction.name, "recorded_at": correction.recorded_at.isoformat(), "rows": correction.rows}
    write_json(_directory() / f"{correction.name}.json", values)


def _directory() -> UPath:
    return log_directory() / "corrections"
