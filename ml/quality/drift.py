"""Code drift: the codes of the trailing seven nights against those of the four weeks before them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from math import log

import polars as pl

from ml.common.paths import polars_source
from ml.extraction.log import CODES, Partition
from ml.quality.rules import (
    BIN_ROWS,
    CHANCE,
    CODES_NAMED,
    DRIFT_ROWS,
    NEW_SHARE,
    PSI_WARN,
    RECENT_DAYS,
    REFERENCE_DAYS,
    REGULAR_ROWS,
)
from ml.quality.verdict import CodeCount, Drift, KindDrift
from ml.quality.volume import covered_days, trailing, volumes
from ml.settings import get_settings

UNMET = "SOURCE"  # vocabulary of codes that met no dictionary
SMOOTHING = 0.5  # added to every bin: a bin that is empty on one side has a logarithm


def measure_drift(partition: Partition, committed: Sequence[Partition]) -> Drift:
    """The drift of a night; without kinds where there are not yet days enough to compare with.

    Reads ``codes.parquet`` of at most the nights of five weeks, nothing else.
    """
    if partition.recorded_from is None:
        return Drift()
    start = partition.recorded_to - timedelta(days=RECENT_DAYS - 1)
    recent = [*(p for p in committed if p.recorded_from is not None and p.recorded_to >= start), partition]
    first = min(p.recorded_from for p in recent if p.recorded_from is not None)
    before = trailing(first, committed)
    days, days_before = (sum(len(covered_days(p)) for p in nights) for nights in (recent, before))
    found = Drift(
        recent_from=first.isoformat(),
        recent_to=partition.recorded_to.isoformat(),
        recent_days=days,
        reference_days=days_before,
        volumes=volumes(partition, committed),
    )
    if days_before < REFERENCE_DAYS:
        return found
    counts = _counts(recent, before)
    kinds = [
        _of_kind(str(kind[0]), rows, recent, before)
        for kind, rows in sorted(counts.partition_by("kind", as_dict=True).items())
    ]
    return Drift(**{**vars(found), "kinds": tuple(kinds)})


def _counts(recent: Sequence[Partition], before: Sequence[Partition]) -> pl.DataFrame:
    """Rows by kind and code: ``now`` and ``before``, and ``nights`` of those before that have the code."""
    frames = [_codes(night, now=now) for now, nights in ((False, before), (True, recent)) for night in nights]
    empty = pl.DataFrame(schema={"kind": pl.String, "code": pl.String, "rows": pl.Int64, "now": pl.Boolean})
    return (
        pl.concat([empty, *(frame for frame in frames if frame is not None)])
        .group_by("kind", "code")
        .agg(
            now=pl.col("rows").filter(pl.col("now")).sum(),
            before=pl.col("rows").filter(~pl.col("now")).sum(),
            nights=(~pl.col("now")).sum(),
        )
        .sort("kind", "code")
    )


def _codes(night: Partition, *, now: bool) -> pl.DataFrame | None:
    if CODES not in night.files:  # it has nothing but tombstones, or no rows
        return None
    codes = pl.read_parquet(**polars_source(night.path / CODES)).select("kind", "code", "rows")
    return codes.with_columns(now=pl.lit(now))


def _of_kind(kind: str, codes: pl.DataFrame, recent: Sequence[Partition], before: Sequence[Partition]) -> KindDrift:
    now, then = int(codes["now"].sum()), int(codes["before"].sum())
    judged = min(now, then) >= DRIFT_ROWS
    psi, limit = stability(codes) if judged else (None, None)
    new = codes.filter(pl.col("before") == 0)
    seen_once = codes.filter(pl.col("before") == 1).height
    # Good (1953): the rows to come with codes not seen so far, from the codes seen once.
    new_limit = NEW_SHARE + 2 * seen_once / max(then, 1)
    regular = _regular(codes, recent, before)
    gone = regular.filter(pl.col("now") == 0) if now else regular.clear()
    unmet = pl.col("code").str.starts_with(f"{UNMET}//")
    unmet_now, unmet_then = (int(codes.filter(unmet)[side].sum()) for side in ("now", "before"))
    return KindDrift(
        kind=kind,
        rows=now,
        rows_before=then,
        judged=judged,
        psi=psi,
        psi_limit=limit,
        new_codes=new.height,
        new_rows=int(new["now"].sum()),
        new_limit=new_limit,
        new_named=_named(new, "now"),
        regular_codes=regular.height,
        vanished_codes=gone.height,
        vanished_named=_named(gone, "before"),
        unmet=unmet_now,
        unmet_share=_share(unmet_now, now),
        unmet_share_before=_share(unmet_then, then),
        unmapped=sum(p.unmapped.get(kind, 0) for p in recent),
        unmapped_share=_unmapped(kind, recent),
        unmapped_share_before=_unmapped(kind, before),
    )


def stability(codes: pl.DataFrame) -> tuple[float, float]:
    """The population stability index of codes (columns ``code``, ``now``, ``before``), and what is tolerated of it.

    PSI = sum over bins of (p - q) ln(p / q), p and q a bin's share now and before: Kullback's symmetric divergence
    (Siddiqi, Credit Risk Scorecards, 2006). A bin is a code; codes too rare for a bin are counted by category (the
    first three characters), and what is still too rare together. Where nothing drifts, PSI is distributed as
    (1/n + 1/m) chi-squared with bins - 1 degrees of freedom (Yurdakul and Naranjo, J. Risk Model Validation 14(4),
    2020): tolerated is 0.2, or the quantile of that which chance passes once in a thousand, where that is larger.
    """
    from scipy.special import chdtri

    now, before = int(codes["now"].sum()), int(codes["before"].sum())
    enough = (pl.col("now") + pl.col("before")).sum() * now / (now + before) >= BIN_ROWS
    category = pl.col("code").str.extract(r"^([^/]*//.{1,3})").fill_null(pl.col("code"))
    bins = (
        codes.with_columns(bin=pl.when(enough.over("code")).then(pl.format("code {}", "code")).otherwise(category))
        .with_columns(bin=pl.when(enough.over("bin")).then("bin").otherwise(pl.lit("others")))
        .group_by("bin")
        .agg(pl.col("now", "before").sum())
        .sort("bin")
    )
    if bins.height < 2:
        return 0.0, PSI_WARN
    p, q = (_shares(bins[side].to_list()) for side in ("now", "before"))
    psi = sum((a - b) * log(a / b) for a, b in zip(p, q, strict=True))
    return psi, max(PSI_WARN, (1 / now + 1 / before) * float(chdtri(bins.height - 1, CHANCE)))


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts) + SMOOTHING * len(counts)
    return [(count + SMOOTHING) / whole for count in counts]


def _regular(codes: pl.DataFrame, recent: Sequence[Partition], before: Sequence[Partition]) -> pl.DataFrame:
    """Codes that at least half of the nights before had, and often enough that their absence is no chance."""
    ratio = sum(len(covered_days(p)) for p in recent) / sum(len(covered_days(p)) for p in before)
    often = (pl.col("before") * ratio >= REGULAR_ROWS) & (2 * pl.col("nights") >= len(before))
    return codes.filter(often)


def _named(codes: pl.DataFrame, side: str) -> tuple[CodeCount, ...]:
    """The most frequent by name: none that fewer rows have than may be shown, and none of the source's own words, which
    may say anything."""
    own_words = pl.col("code").str.starts_with(f"{UNMET}//")
    shown = codes.filter((pl.col(side) >= get_settings().min_cell) & ~own_words)
    ordered = shown.sort(side, "code", descending=[True, False]).head(CODES_NAMED)
    return tuple(CodeCount(code, rows) for code, rows in ordered.select("code", side).iter_rows())


def _unmapped(kind: str, nights: Sequence[Partition]) -> float:
    return _share(sum(p.unmapped.get(kind, 0) for p in nights), sum(p.rows.get(kind, 0) for p in nights))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
