"""``vigil load meds``: a MEDS dataset, also one whose columns or codes are not quite the standard's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg2 import sql

from ml.common.db import fetch
from ml.common.errors import SourceError
from ml.common.files import sha256_file
from ml.common.progress import Progress
from ml.sources.loading.load import Loader
from ml.sources.loading.meds_codes import normalise
from ml.sources.loading.meds_rows import COLUMNS, OPTIONAL, Layout, convert, layout
from ml.sources.loading.session import FileReport, LoadSession
from ml.sources.meds import MEDS

HERE = Path(__file__).parent
BATCH = 65_536
CODES = "metadata/codes.parquet"
EVENTS = "meds_events"


def loader(columns: Mapping[str, str], shift_days: int = 0) -> Loader:
    """The loader for a dataset.

    Args:
        columns: our column by the dataset's, where its name is not one that Vigil knows.
        shift_days: added to every time, for datasets whose dates lie in the future.
    """

    def fill(session: LoadSession, files: Mapping[str, Path]) -> tuple[str, list[str]]:
        return _fill(session, files, columns, shift_days)

    return Loader(
        name="meds",
        layout=MEDS.name,
        ddl=MEDS.folder / "ddl.sql",
        required=(),
        used=None,
        fill=fill,
        find=find_parquet,
        check=_check,
        options={"columns": dict(columns), "shift_days": shift_days},
    )


def find_parquet(directory: Path) -> dict[str, Path]:
    """The data files by their place in the dataset, and ``metadata/codes.parquet`` if there is one. Where there is no
    folder ``data``, the files of the directory itself.

    Raises:
        SourceError: there are none.
    """
    data = directory / "data"
    files = sorted(data.rglob("*.parquet") if data.is_dir() else directory.glob("*.parquet"))
    if not files:
        raise SourceError(f"{directory} holds no data/*.parquet", "name the folder of a MEDS dataset")
    found = {path.relative_to(directory).as_posix(): path for path in files}
    if (codes := directory / CODES).is_file():
        found[CODES] = codes
    return found


def _check(path: Path) -> str:
    """SHA-256 of a file that is Parquet.

    Raises:
        SourceError: it is not, or cannot be read.
    """
    try:
        pq.read_metadata(path)
        return sha256_file(path)
    except (OSError, pa.ArrowInvalid):
        raise SourceError(f"{path.name} is not a whole Parquet file", "copy it again; nothing was loaded") from None


def _fill(
    session: LoadSession, files: Mapping[str, Path], columns: Mapping[str, str], shift_days: int
) -> tuple[str, list[str]]:
    data = {name: path for name, path in files.items() if name != CODES}
    layouts, found = _layouts(data, columns)
    session.create_staging(EVENTS, {**COLUMNS, "line": "bigint"})
    first_lines: dict[int, FileReport] = {}
    line = 1
    progress = Progress("load", sum(pq.read_metadata(path).num_rows for path in data.values()))
    for name, path in data.items():
        report = FileReport(name, EVENTS, ignored_columns=layouts[name].ignored)
        session.reports.append(report)
        first_lines[line] = report
        for batch in _batches(path):
            rows = convert(layouts[name], batch, line, shift_days)
            session.copy(session.staging(EVENTS), rows.good.columns, rows.good)
            session.reject(report, _in_file(rows.rejected, line - 1 - report.read))
            report.read += batch.height
            line += batch.height
            progress.report(line - 1, f"rows of {name}")
    if "source_key" in found.ours:
        _reject_repeated(session, first_lines)
    for report in first_lines.values():
        report.loaded = report.read - report.rejected.total()
    _insert(session)
    if CODES in files:
        _load_codes(session, files[CODES], found)
    return ("kept" if "recorded_at" in found.ours else "assumed"), _notes(session, found, shift_days)


def _layouts(files: Mapping[str, Path], columns: Mapping[str, str]) -> tuple[dict[str, Layout], Layout]:
    """The layout of each file, and that of all together.

    Raises:
        SourceError: files differ in a column that must be in all of them or in none.
    """
    layouts = {name: layout(pq.read_schema(path).names, columns) for name, path in files.items()}
    together = {ours: theirs for found in layouts.values() for ours, theirs in found.ours.items()}
    for name, found in layouts.items():
        if any(ours not in OPTIONAL and found.ours.get(ours) != theirs for ours, theirs in together.items()):
            raise SourceError(f"{name} has other columns than the other files", "export the dataset again")
    ignored = sorted({column for found in layouts.values() for column in found.ignored})
    return layouts, Layout({name: together[name] for name in COLUMNS if name in together}, tuple(ignored))


def _batches(path: Path) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(BATCH):
            frame = pl.from_arrow(batch)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def _in_file(rejected: pl.DataFrame, before: int) -> pl.DataFrame:
    """Rows with their number in their own file."""
    return rejected.with_columns(pl.col("line") - before)


def _reject_repeated(session: LoadSession, first_lines: Mapping[int, FileReport]) -> None:
    statement = sql.SQL((HERE / "meds_repeated.sql").read_text())
    rows = fetch(session.connection, statement.format(staging=session.staging(EVENTS)))
    starts = sorted(first_lines)
    repeated = pl.DataFrame(rows, schema={"line": pl.Int64, "raw": pl.String}, orient="row").sort("line")
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        here = pl.col("line") >= start if end is None else pl.col("line").is_between(start, end, closed="left")
        part = repeated.filter(here).select("line", reason=pl.lit("source_key occurs before"), raw="raw")
        session.reject(first_lines[start], _in_file(part, start - 1))


def _insert(session: LoadSession) -> None:
    # The made keys are a hash of the rows as text, which must not hang on how this server writes dates and numbers.
    session.run("set local datestyle = 'ISO, YMD'; set local extra_float_digits = 1")
    undated = "select count(*) > 0 and count(time) = 0 from {}"
    if fetch(session.connection, sql.SQL(undated).format(session.staging(EVENTS)))[0][0]:
        raise SourceError("no event of the dataset has a time", "name the column of times with --column theirs=time")
    session.run(sql.SQL((HERE / "meds_events.sql").read_text()).format(staging=session.staging(EVENTS)))


def _load_codes(session: LoadSession, path: Path, found: Layout) -> None:
    """Descriptions and parents of codes."""
    report = FileReport(CODES, "meds_codes")
    session.reports.append(report)
    session.create_staging(
        "meds_codes", {"code": "text", "description": "text", "parent_codes": "text", "line": "bigint"}
    )

    def written(code: str) -> str:
        return code if found.vigils else normalise(code)

    for batch in _batches(path):
        if "code" not in batch.columns:
            raise SourceError(f"{CODES} has no column code", "export the dataset again, or remove the file")
        rows = [
            {
                "code": written(row["code"]),
                "description": row.get("description"),
                "parent_codes": _array(row.get("parent_codes"), found),
                "line": report.read + number,
            }
            for number, row in enumerate(batch.iter_rows(named=True))
            if row["code"]
        ]
        schema = {"code": pl.String, "description": pl.String, "parent_codes": pl.String, "line": pl.Int64}
        session.copy(session.staging("meds_codes"), list(schema), pl.DataFrame(rows, schema=schema))
        report.read += batch.height
    statement = sql.SQL((HERE / "meds_codes.sql").read_text())
    report.loaded = session.run(statement.format(staging=session.staging("meds_codes")))


def _array(parents: list[str | None] | None, found: Layout) -> str | None:
    """Parent codes as JSON; None for none. A parent is written ``VOCABULARY/code`` in MEDS, as the codes may be."""
    kept = [parent if found.vigils else normalise(parent) for parent in parents or [] if parent]
    return json.dumps(kept) if kept else None


def _notes(session: LoadSession, found: Layout, shift_days: int) -> list[str]:
    notes = [f"column {theirs} is read as {' or '.join(ours)}" for theirs, ours in found.renamed.items()]
    if shift_days:
        notes.append(f"every time was shifted by {shift_days:,} days; intervals kept")
    if "recorded_at" not in found.ours:
        notes.append(
            "MEDS does not say when a row became known: an event is taken as known at the end of its day, "
            "a birth and what has no time with the person's first event"
        )
    elif "removed" not in found.ours:
        notes.append(
            "the dataset has recorded_at, of each row's newest version: what was corrected or removed before it was "
            "made is not seen in views of earlier days"
        )
    if not found.vigils:
        notes.append("codes were written as Vigil writes them where their form is known (docs/reference/sources.md)")
    return notes + _future(session)


def _future(session: LoadSession) -> list[str]:
    today = datetime.now(UTC).date()
    query = sql.SQL("select count(*), max(recorded_at)::date from {} where recorded_at >= %s")
    count, newest = fetch(session.connection, query.format(session.table(EVENTS)), (today,))[0]
    if not count:
        return []
    assert isinstance(newest, date)
    days = (today - newest).days - 1
    return [f"{count:,} events lie in the future and no night can take them: load with --replace --shift-days {days}"]
