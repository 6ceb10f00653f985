"""Batches of a MEDS dataset as rows of ``meds_events``: columns found by name, types made right, faults named."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ml.common.errors import SourceError
from ml.sources.loading.meds_codes import normalise

COLUMNS: dict[str, str] = {  # Postgres types
    "subject_id": "bigint",
    "time": "timestamp",
    "code": "text",
    "numeric_value": "real",
    "text_value": "text",
    "visit_id": "bigint",
    "recorded_at": "timestamp",
    "source_key": "text",
    "removed": "boolean",
}
POLARS: dict[str, type[pl.DataType] | pl.DataType] = {
    "bigint": pl.Int64,
    "timestamp": pl.Datetime("us"),
    "real": pl.Float32,
    "boolean": pl.Boolean,
    "text": pl.String,
}
REQUIRED = ("subject_id", "time", "code")
OPTIONAL = (
    "numeric_value",
    "text_value",
    "visit_id",
)  # the standard lets a file without values leave their columns out
FILLED = ("subject_id", "code", "recorded_at", "source_key")  # where the dataset has them, each row must
# Names that other makers of MEDS datasets use.
ALIASES = {
    "patient_id": "subject_id",
    "timestamp": "time",
    "hadm_id": "visit_id",
    "visit_occurrence_id": "visit_id",
    "encounter_id": "visit_id",
}
VALUE = "value"  # numbers, or text that may be one: what reads as a number is numeric_value, the rest text_value
YEARS = (1, 9999)


@dataclass(frozen=True)
class Layout:
    """Which of a dataset's columns are read as what.

    Attributes:
        ours: the dataset's column by ours; ``numeric_value`` and ``text_value`` may both come from ``value``.
        ignored: columns that are not used.
    """

    ours: Mapping[str, str]
    ignored: tuple[str, ...]

    @property
    def vigils(self) -> bool:
        """Whether the dataset has both of the columns by which an export of Vigil is known: it is taken as it is."""
        return {"recorded_at", "source_key"} <= set(self.ours)

    @property
    def renamed(self) -> dict[str, list[str]]:
        """Our columns by the dataset's, where the names differ."""
        found: dict[str, list[str]] = {}
        for ours, theirs in self.ours.items():
            if ours != theirs:
                found.setdefault(theirs, []).append(ours)
        return found


def layout(columns: Sequence[str], given: Mapping[str, str]) -> Layout:
    """Find our columns among a dataset's.

    Args:
        given: our column by the dataset's, as the caller says.

    Raises:
        SourceError: a column that is needed is not there, or a given one is unknown.
    """
    if unknown := sorted((set(given) - set(columns)) | (set(given.values()) - {*COLUMNS, VALUE})):
        raise SourceError(
            f"--column names {', '.join(unknown)}, which the dataset or Vigil does not have",
            f"write theirs=ours, ours one of {', '.join([*COLUMNS, VALUE])}",
        )
    ours = {ours: theirs for theirs, ours in given.items()}
    for name in columns:
        if name in COLUMNS and name not in given:
            ours.setdefault(name, name)
    for theirs, name in ALIASES.items():
        if theirs in columns and theirs not in given:
            ours.setdefault(name, theirs)
    value = ours.pop(VALUE, VALUE if VALUE in columns and VALUE not in given else None)
    if value and "numeric_value" not in ours:
        ours.setdefault("text_value", value)
        ours["numeric_value"] = value
    if missing := [name for name in REQUIRED if name not in ours]:
        raise SourceError(
            f"the dataset has no column {', '.join(missing)}",
            "name it with --column theirs=ours; MEDS 0.3 and newer have one event a row",
        )
    used = set(ours.values())
    return Layout(
        {name: ours[name] for name in COLUMNS if name in ours}, tuple(name for name in columns if name not in used)
    )


@dataclass(frozen=True)
class Rows:
    """Typed rows (columns of the layout, and ``line``) and those at fault (``line``, ``reason``, ``raw``)."""

    good: pl.DataFrame
    rejected: pl.DataFrame


def convert(found: Layout, batch: pl.DataFrame, first_line: int, shift_days: int) -> Rows:
    """Convert a batch.

    Args:
        first_line: number of its first row.
        shift_days: added to every time.
    """
    typed = batch.select(_typed(ours, theirs, found, batch.schema[theirs]) for ours, theirs in found.ours.items())
    moved = [name for name in ("time", "recorded_at") if name in found.ours]
    reasons = [reason for name in found.ours for reason in _faults(name, found, batch, typed)]
    if shift_days:
        typed = typed.with_columns(pl.col(moved) + pl.duration(days=shift_days))
    reasons += [
        _where(~typed[name].dt.year().is_between(*YEARS), f"{name} lies outside all calendars") for name in moved
    ]
    reason = pl.select(pl.coalesce([pl.lit(None, pl.String), *reasons])).to_series()
    if len(reason) != batch.height:
        reason = pl.Series([None] * batch.height, dtype=pl.String)
    if not found.vigils:
        typed = typed.with_columns(code=_mapped(typed["code"], normalise))
    lines = pl.int_range(first_line, first_line + batch.height, dtype=pl.Int64, eager=True)
    good = typed.with_columns(line=lines).filter(reason.is_null())
    rejected = batch.select(line=lines, reason=reason, raw=pl.struct(pl.all())).filter(reason.is_not_null())
    return Rows(good, rejected.with_columns(pl.col("raw").struct.json_encode()))


def _typed(ours: str, theirs: str, found: Layout, kind: pl.DataType) -> pl.Expr:
    column = pl.col(theirs)
    if ours == "text_value" and found.ours.get("numeric_value") == theirs:
        text = column.cast(pl.String) if kind == pl.String else pl.lit(None, pl.String)
        return pl.when(_number(text).is_null()).then(text).alias(ours)
    if ours == "numeric_value" and kind == pl.String:
        return _number(column).alias(ours)
    if COLUMNS[ours] == "timestamp":
        return _moment(column, kind).alias(ours)
    return column.cast(POLARS[COLUMNS[ours]], strict=False).alias(ours)


def _number(text: pl.Expr) -> pl.Expr:
    return text.str.strip_chars().cast(pl.Float64, strict=False).cast(pl.Float32)


def _moment(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if isinstance(kind, pl.Datetime) and kind.time_zone:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if kind == pl.String:
        return column.str.to_datetime(time_unit="us", strict=False)
    return column.cast(pl.Datetime("us"), strict=False)


def _faults(name: str, found: Layout, batch: pl.DataFrame, typed: pl.DataFrame) -> list[pl.Series]:
    given, made = batch[found.ours[name]], typed[name]
    shared = name in ("numeric_value", "text_value") and found.ours.get("numeric_value") == found.ours.get("text_value")
    reasons = [] if shared else [_where(given.is_not_null() & made.is_null(), f"{name} is no {COLUMNS[name]}")]
    if COLUMNS[name] == "text":
        reasons.append(_where(made.str.contains("\x00", literal=True).fill_null(False), f"{name} holds a NUL byte"))
    if name in FILLED:
        empty = made.is_null() | (made == "") if COLUMNS[name] == "text" else made.is_null()
        reasons.append(_where(empty, f"no {name}"))
    return reasons


def _mapped(codes: pl.Series, change: Callable[[str], str]) -> pl.Series:
    distinct = codes.unique().drop_nulls().to_list()
    return codes.replace_strict(distinct, [change(code) for code in distinct], default=None, return_dtype=pl.String)


def _where(mask: pl.Series, reason: str) -> pl.Series:
    return pl.select(pl.when(mask).then(pl.lit(reason))).to_series()
