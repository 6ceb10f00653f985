"""An event view as a MEDS 0.4 table, and back; what MEDS asks of one, checked with the standard's own schemas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ml.common.errors import VigilError
from ml.extraction.view import COLUMNS

# Beside MEDS's columns: the encounter, the second clock, and the source row, so that an export loads back as it was.
OWN_COLUMNS = {"visit_id": pa.int64(), "recorded_at": pa.timestamp("us"), "source_key": pa.string()}
SLICE_ROWS = 1_000_000  # converted to Arrow at once


def data_schema() -> pa.Schema:
    """The schema of an exported data file: MEDS's columns in its order and types, then Vigil's."""
    from meds import DataSchema

    return pa.schema([*DataSchema.schema(), *(pa.field(name, kind) for name, kind in OWN_COLUMNS.items())])


def to_meds(view: pl.DataFrame) -> Iterator[pa.Table]:
    """The rows of a view as MEDS tables, in order, at most ``SLICE_ROWS`` each; at least one."""
    schema = data_schema()
    for rows in view.select(schema.names).iter_slices(SLICE_ROWS) if view.height else [view.select(schema.names)]:
        yield rows.to_arrow().cast(schema)


def write_data(path: Path, view: pl.DataFrame) -> None:
    """Write one data file, each part of it checked.

    Raises:
        VigilError: MEDS would not allow it.
    """
    check_order(view)
    with pq.ParquetWriter(path, data_schema(), compression="zstd") as writer:
        for table in to_meds(view):
            check("DataSchema", table)
            writer.write_table(table)


def read_data(path: Path) -> pl.DataFrame:
    """An exported data file as the view that it was made from: the columns of ``EVENT_SCHEMA``, in its order.

    Raises:
        VigilError: the file is not valid MEDS, or lacks Vigil's columns.
    """
    check("DataSchema", pq.read_schema(path))
    rows = pl.read_parquet(path)
    missing = [name for name in COLUMNS if name not in rows.columns and name != "removed"]
    if missing:
        raise VigilError(f"{path.name} has no column {', '.join(missing)}", "only an export of Vigil can be read back")
    check_order(rows)
    return rows.with_columns(removed=pl.lit(False)).select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def check(name: str, content: pa.Table | pa.Schema | dict[str, Any]) -> None:
    """Validate against a schema class of the package ``meds``.

    Args:
        name: ``DataSchema``, ``CodeMetadataSchema``, ``SubjectSplitSchema`` or ``DatasetMetadataSchema``.

    Raises:
        VigilError: it is not valid; the message names columns, no value.
    """
    import meds
    from flexible_schema import SchemaValidationError, TableValidationError  # type: ignore[import-untyped]

    try:
        getattr(meds, name).validate(content)
    except (SchemaValidationError, TableValidationError) as error:
        raise VigilError(f"this is no valid MEDS {name}: {error}", "nothing was exported; report it") from None


def check_order(rows: pl.DataFrame) -> None:
    """What MEDS asks and its schema cannot say: a subject's rows lie together, by time, static ones first.

    Raises:
        VigilError: they do not.
    """
    subject, time = pl.col("subject_id"), pl.col("time")
    follows = subject == subject.shift()
    earlier = time.is_null() & time.shift().is_not_null() | (time < time.shift())
    wrong = rows.select(((subject < subject.shift()) | (follows & earlier)).fill_null(False).sum()).item()
    if wrong:
        raise VigilError(f"{wrong:,} rows are out of MEDS's order", "sort by subject and time, static rows first")


def check_apart(subjects: list[pl.Series]) -> None:
    """No subject lies in two files.

    Args:
        subjects: the distinct subjects of each file.

    Raises:
        VigilError: some do; the message gives their number.
    """
    everyone = pl.concat(subjects)
    twice = everyone.filter(everyone.is_duplicated()).n_unique()
    if twice:
        raise VigilError(f"{twice:,} subjects lie in more than one file", "a subject's rows belong into one file")
