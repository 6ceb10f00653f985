"""From text fields to typed columns, each row that does not fit set aside with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.sources.loading.csv_files import Batch

INTEGERS = {"smallint": (-(2**15), 2**15 - 1), "integer": (-(2**31), 2**31 - 1), "bigint": (-(2**63), 2**63 - 1)}
TIMES = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y%m%d")
REASON = "_reason"


@dataclass(frozen=True)
class TableSpec:
    """What a CSV file of one table must look like.

    Attributes:
        table: its name, also the file's stem.
        columns: Postgres type by column; columns that the file lacks are left null.
        required: columns that must be there and filled.
        key: columns that identify a row.
        subject: column of the person, who must be known.
        visit: column of the visit.
        visit_required: a row of an unknown visit is set aside; otherwise it is kept without the visit.
        patterns: regular expressions that text must match.
        may_be_absent: the file need not exist.
    """

    table: str
    columns: Mapping[str, str]
    required: frozenset[str]
    key: tuple[str, ...]
    subject: str | None = None
    visit: str | None = None
    visit_required: bool = False
    patterns: Mapping[str, str] = field(default_factory=dict)
    may_be_absent: bool = True


@dataclass(frozen=True)
class Converted:
    """Typed rows (with ``line``), rejected rows (``line``, ``reason``, ``raw``), and rows kept without their visit."""

    good: pl.DataFrame
    rejected: pl.DataFrame
    without_visit: int


def convert(
    spec: TableSpec,
    header: list[str],
    batch: Batch,
    subjects: npt.NDArray[np.int64] | None,
    visits: npt.NDArray[np.int64] | None,
) -> Converted:
    """Convert a batch. ``subjects`` and ``visits`` are the sorted known ids; None: not to be checked."""
    columns = list(zip(*batch.fields, strict=True)) if batch.fields else [()] * len(header)
    wanted = [name for name in header if name in spec.columns]
    text = pl.DataFrame({name: columns[header.index(name)] for name in wanted}, schema=dict.fromkeys(wanted, pl.String))
    text = text.with_columns(_empty_to_null(pl.all()))
    typed = text.select(_typed(name, spec.columns[name]) for name in wanted)
    reasons = [_fault(name, spec, text[name], typed[name]) for name in wanted]
    if spec.subject and subjects is not None:
        reasons.append(_where(~_known(typed[spec.subject], subjects), "unknown person"))
    without_visit = 0
    if spec.visit in wanted and visits is not None:
        typed, unknown = _check_visit(typed, str(spec.visit), visits)
        without_visit = int(unknown.sum())
        if spec.visit_required:
            reasons.append(_where(unknown, "unknown visit"))
            without_visit = 0
    reason = pl.select(pl.coalesce([pl.lit(None, pl.String), *reasons])).to_series()
    if reason.len() != len(batch.lines):
        reason = pl.Series([None] * len(batch.lines), dtype=pl.String)
    good = typed.with_columns(line=pl.Series(batch.lines, dtype=pl.Int64)).filter(reason.is_null())
    raw = pl.DataFrame({"line": batch.lines, "reason": reason, "raw": batch.raw}, schema_overrides={"line": pl.Int64})
    return Converted(good, raw.filter(reason.is_not_null()), without_visit)


def _empty_to_null(text: pl.Expr) -> pl.Expr:
    stripped = text.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _typed(name: str, kind: str) -> pl.Expr:
    text = pl.col(name)
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        number = text.str.extract(r"^([+-]?\d+)(?:\.0*)?$").cast(pl.Int64, strict=False)
        return pl.when(number.is_between(low, high)).then(number).alias(name)
    if kind == "double precision":
        number = text.cast(pl.Float64, strict=False)
        return pl.when(number.is_finite()).then(number).alias(name)
    if kind in ("date", "timestamp"):
        plain = text.str.replace("T", " ", literal=True).str.replace(r"(?:Z|\+00(?::?00)?)$", "")
        moments = [plain.str.to_datetime(form, time_unit="us", strict=False, exact=True) for form in TIMES]
        moment = pl.coalesce(moments)
        return (moment.dt.date() if kind == "date" else moment).alias(name)
    if kind == "boolean":
        values = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}
        return text.str.to_lowercase().replace_strict(values, default=None, return_dtype=pl.Boolean).alias(name)
    return text


def _fault(name: str, spec: TableSpec, text: pl.Series, typed: pl.Series) -> pl.Series:
    """The reason why a field does not fit, null where it does."""
    kind = spec.columns[name]
    reason = _where(text.is_not_null() & typed.is_null(), f"{name} is no {kind}")
    if kind == "text":
        reason = _where(text.str.contains("\x00", literal=True).fill_null(False), f"{name} holds a NUL byte")
    if pattern := spec.patterns.get(name):
        bad = ~text.str.contains(pattern).fill_null(True)
        reason = pl.select(pl.coalesce(reason, _where(bad, f"{name} has another form"))).to_series()
    if name in spec.required:
        reason = pl.select(pl.coalesce(reason, _where(text.is_null(), f"no {name}"))).to_series()
    return reason


def _where(mask: pl.Series, reason: str) -> pl.Series:
    return pl.select(pl.when(mask).then(pl.lit(reason))).to_series()


def _known(ids: pl.Series, known: npt.NDArray[np.int64]) -> pl.Series:
    values = ids.fill_null(-1).to_numpy()
    if not len(known):
        return pl.Series(np.zeros(len(values), bool))
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return pl.Series(known[place] == values)


def _check_visit(typed: pl.DataFrame, visit: str, visits: npt.NDArray[np.int64]) -> tuple[pl.DataFrame, pl.Series]:
    """Rows without the visits that do not exist, and which rows those were; visit 0 means none."""
    ids = typed[visit]
    known = _known(ids, visits)
    unknown = ids.is_not_null() & (ids != 0).fill_null(False) & ~known
    kept = typed.with_columns(pl.select(pl.when(known).then(ids)).to_series().alias(visit))
    return kept, unknown
