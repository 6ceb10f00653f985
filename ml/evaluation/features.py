"""What the baselines see: age, sex, and counts of codes by look-back window, from the view at each index day.

The view at day t holds exactly what was recorded by then, so no feature can know the future.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.cohorts.eligibility import prediction_time
from ml.cohorts.runs import TrainingRun
from ml.common.progress import Progress
from ml.evaluation.rows import KEY, at
from ml.extraction import read_view
from ml.extraction.schema import BIRTH, DEATH

WINDOWS: tuple[int | None, ...] = (None, 365, 90)  # days looked back; None is ever
NOT_FEATURE = re.compile(rf"^({BIRTH}$|{DEATH}$|GENDER//|RACE//|ETHNICITY//|SITE//)")  # facts, not events
CATEGORY = re.compile(r"^(?:ICD10CM|ICD9CM|ATC)//\w{3}")  # three characters: E11 of E11.9, 428 of 428.0, A10 of A10BA02
DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Features:
    """Features of distinct (subject, prediction time) rows.

    Attributes:
        rows: ``subject_id``, ``prediction_time``, ``row`` (0 … rows - 1).
        age: years at the index day, float64 (rows,), NaN where no birth is known.
        history: years from the first event, of those that are features, to the index day, float64 (rows,), NaN without.
        sex: the GENDER code's value, or "unknown"; str (rows,).
        site: the SITE code's value, or "unknown"; str (rows,).
        codes: names of the columns, sorted; a category of three characters ends in ``*``.
        counts: times recorded within each of ``WINDOWS``; float32 CSR (rows, codes) each.
    """

    rows: pl.DataFrame
    age: NDArray[np.float64]
    sex: NDArray[np.str_]
    site: NDArray[np.str_]
    codes: tuple[str, ...]
    counts: tuple[sp.csr_matrix, ...]
    history: NDArray[np.float64]

    @property
    def ever(self) -> sp.csr_matrix:
        """1 where a code was ever recorded; float32 CSR (rows, codes)."""
        return (self.counts[0] > 0).astype(np.float32)

    def find(self, labels: pl.DataFrame) -> NDArray[np.int64]:
        """The row of each label row."""
        found = labels.select(KEY).join(self.rows, on=KEY, how="left", maintain_order="left")["row"]
        return found.cast(pl.Int64).to_numpy()


@dataclass(frozen=True)
class _Chunk:
    """Counts of one index day and shard.

    Attributes:
        rows: positions in ``Features.rows``, int32 (r,).
        codes: names of the columns.
        counts: times a code was recorded within each of ``WINDOWS``; CSR (r, codes) each.
    """

    rows: NDArray[np.int32]
    codes: tuple[str, ...]
    counts: tuple[sp.csr_matrix, ...]


def _count(view: pl.DataFrame, rows: pl.DataFrame, day: date) -> _Chunk:
    """Count the codes of each row; ``rows`` is sorted by subject, ``view`` holds no other subject."""
    end = prediction_time(day)
    wanted = sorted(code for code in view["code"].unique() if not NOT_FEATURE.match(code))
    events = view.filter((pl.col("time") < end) & pl.col("code").is_in(wanted))
    row = np.searchsorted(rows["subject_id"].to_numpy(), events["subject_id"].to_numpy())
    column = events["code"].cast(pl.Enum(wanted)).to_physical().to_numpy()
    shape = (len(rows), len(wanted))
    categories, rollup = _rollup(wanted)
    counts = []
    for days in WINDOWS:
        inside = slice(None) if days is None else (events["time"] >= end - timedelta(days=days)).to_numpy()
        cells = (row[inside], column[inside])
        found = sp.csr_matrix((np.ones(len(cells[0]), np.float32), cells), shape=shape)  # adds up what repeats
        counts.append(sp.hstack([found, found @ rollup], format="csr"))
    return _Chunk(rows["row"].to_numpy(), (*wanted, *categories), tuple(counts))


def _rollup(codes: list[str]) -> tuple[list[str], sp.csr_matrix]:
    """Categories of three characters, and the 0/1 matrix (codes, categories) that adds counts up to them."""
    pairs = [(k, found[0] + "*") for k, code in enumerate(codes) if (found := CATEGORY.match(code))]
    categories = sorted({category for _, category in pairs})
    place = {category: k for k, category in enumerate(categories)}
    cells = ([k for k, _ in pairs], [place[category] for _, category in pairs])
    return categories, sp.csr_matrix((np.ones(len(pairs), np.float32), cells), shape=(len(codes), len(categories)))


def _facts(view: pl.DataFrame, rows: pl.DataFrame, day: date) -> pl.DataFrame:
    """(row, age, history, sex, site) of every row."""
    fact = [code for code in view["code"].unique() if NOT_FEATURE.match(code)]
    events = view.filter(~pl.col("code").is_in(fact) & (pl.col("time") < prediction_time(day)))
    firsts = events.group_by("subject_id").agg(first=pl.col("time").min())
    births = view.filter(pl.col("code") == BIRTH).group_by("subject_id").agg(birth=pl.col("time").min())
    age, history = (
        (pl.lit(day).cast(pl.Datetime("us")) - pl.col(since)).dt.total_days() / DAYS_PER_YEAR
        for since in ("birth", "first")
    )
    joined = rows.join(births, on="subject_id", how="left").join(firsts, on="subject_id", how="left")
    for name, prefix in (("sex", "GENDER//"), ("site", "SITE//")):
        told = view.filter(pl.col("code").str.starts_with(prefix)).group_by("subject_id").agg(pl.col("code").max())
        told = told.select("subject_id", pl.col("code").str.strip_prefix(prefix).alias(name))
        joined = joined.join(told, on="subject_id", how="left").with_columns(pl.col(name).fill_null("unknown"))
    return joined.select("row", "sex", "site", age=age.cast(pl.Float64), history=history.cast(pl.Float64))


def _views(run: TrainingRun, rows: pl.DataFrame) -> Iterator[tuple[date, pl.DataFrame, pl.DataFrame]]:
    """(index day, the view of a shard, the rows of its subjects), the view without other subjects."""
    progress = Progress("evaluate", len(run.index_days) * run.snapshot.shards)
    for d, day in enumerate(run.index_days):
        of_day = rows.filter(pl.col("prediction_time") == at(day))
        for shard in range(run.snapshot.shards):
            view = read_view(run.snapshot, day, shard).select("subject_id", "time", "code")
            here = of_day.join(view.select("subject_id").unique(), on="subject_id", how="semi").sort("subject_id")
            yield day, view.join(here, on="subject_id", how="semi"), here
            progress.report(d * run.snapshot.shards + shard + 1, "features of the baselines")


def _assemble(chunks: list[_Chunk], rows: int) -> tuple[tuple[str, ...], tuple[sp.csr_matrix, ...]]:
    """One matrix per window for all rows: columns in sorted order of all codes, rows where they belong."""
    codes = tuple(sorted({code for chunk in chunks for code in chunk.codes}))
    place = {code: k for k, code in enumerate(codes)}
    order = np.concatenate([chunk.rows for chunk in chunks] or [np.empty(0, np.int32)])
    position = sp.csr_matrix((np.ones(len(order), np.float32), (order, np.arange(len(order)))), (rows, len(order)))
    columns = [np.array([place[code] for code in chunk.codes], np.int32) for chunk in chunks]
    stacked = []
    for window in range(len(WINDOWS)):
        parts = []
        for chunk, column in zip(chunks, columns, strict=True):
            matrix = chunk.counts[window]
            shape = (len(chunk.rows), len(codes))
            parts.append(sp.csr_matrix((matrix.data, column[matrix.indices], matrix.indptr), shape))
        tall = sp.vstack(parts, format="csr") if parts else sp.csr_matrix((0, len(codes)), dtype=np.float32)
        placed = position @ tall
        placed.sort_indices()
        stacked.append(placed)
    return codes, tuple(stacked)


def make_features(run: TrainingRun, labels: list[pl.DataFrame]) -> Features:
    """Features of every row that any task labels."""
    keys = pl.concat([frame.select(KEY) for frame in labels]).unique().sort(KEY)
    rows = keys.with_row_index("row").with_columns(pl.col("row").cast(pl.Int32))
    age, history = (np.full(len(rows), np.nan) for _ in range(2))
    sex, site = (np.full(len(rows), "unknown", dtype="U32") for _ in range(2))
    chunks = []
    for day, view, here in _views(run, rows):
        facts = _facts(view, here, day)
        place = facts["row"].to_numpy()
        age[place] = facts["age"].fill_null(float("nan")).to_numpy()
        history[place] = facts["history"].fill_null(float("nan")).to_numpy()
        sex[place], site[place] = (facts[name].to_numpy().astype("U32") for name in ("sex", "site"))
        chunks.append(_count(view, here, day))
    codes, counts = _assemble(chunks, len(rows))
    return Features(rows, age, sex, site, codes, counts, history)
