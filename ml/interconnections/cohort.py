"""From the event view to what counting needs: each patient's first diagnoses and his follow-up, in compact arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.extraction.schema import BIRTH, DEATH

if TYPE_CHECKING:
    from ml.extraction.snapshot import Snapshot

# Three characters, four for ICD-9's E codes; anything else is no diagnosis category.
CATEGORY = r"^(ICD10CM//[A-Z][0-9][0-9A-Z]|ICD9CM//(?:E[0-9]{3}|V[0-9]{2}|[0-9]{3}))"
SEXES = ("", "F", "M")  # index is the stratum's number; 0 is unknown
UNKNOWN_BIRTH = np.iinfo(np.int32).min


@dataclass(frozen=True)
class Histories:
    """First diagnoses of the patients of one shard, as compressed sparse rows. Days count from 1970-01-01.

    Attributes:
        codes: categories (``ICD10CM//E11``), sorted; what ``code`` points into.
        offsets: (P+1,) int64, patient p owns ``offsets[p]:offsets[p+1]`` of ``code`` and ``day``.
        code: (M,) int32, ascending within a patient, each at most once.
        day: (M,) int32, day of the first diagnosis in that category.
        start, end: (P,) int32, follow-up: first clinical event, and the last one or death.
        birth: (P,) int32, ``UNKNOWN_BIRTH`` where none is known.
        sex: (P,) int8, index into ``SEXES``.
    """

    codes: tuple[str, ...]
    offsets: NDArray[np.int64]
    code: NDArray[np.int32]
    day: NDArray[np.int32]
    start: NDArray[np.int32]
    end: NDArray[np.int32]
    birth: NDArray[np.int32]
    sex: NDArray[np.int8]

    @property
    def patients(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Cohort:
    """What every method counts over.

    Attributes:
        shards: histories, all with the same ``codes``; counts over them add up.
        codes: the categories that at least ``min_cell`` patients have.
        codes_left_out: number of categories seen in fewer patients, dropped before anything is counted.
        as_of, digest: the snapshot's.
    """

    shards: tuple[Histories, ...]
    codes: tuple[str, ...]
    codes_left_out: int
    as_of: date
    digest: str

    @property
    def patients(self) -> int:
        """Patients with at least one clinical event, with or without a diagnosis."""
        return sum(shard.patients for shard in self.shards)


def load_cohort(snapshot: Snapshot, min_cell: int) -> Cohort:
    """Read every shard's view at the snapshot's day, one shard in memory at a time."""
    from ml.extraction import read_view

    views = (read_view(snapshot, snapshot.as_of, shard) for shard in range(snapshot.shards))
    return build_cohort(views, min_cell, snapshot.as_of, snapshot.digest)


def build_cohort(views: Iterable[pl.DataFrame], min_cell: int, as_of: date, digest: str) -> Cohort:
    """Give the shards a common list of codes, without those that fewer than ``min_cell`` patients have.

    Args:
        views: one frame per shard in the event schema, latest versions only, tombstones gone.
        min_cell: least number of patients of a code.
    """
    shards = [read_histories(view) for view in views]
    patients: dict[str, int] = {}
    for shard in shards:
        for code, count in zip(shard.codes, np.bincount(shard.code, minlength=len(shard.codes)), strict=True):
            patients[code] = patients.get(code, 0) + int(count)
    codes = tuple(sorted(code for code, count in patients.items() if count >= min_cell))
    aligned = tuple(recode(shard, codes) for shard in shards)
    return Cohort(aligned, codes, len(patients) - len(codes), as_of, digest)


def read_histories(view: pl.DataFrame) -> Histories:
    """First diagnoses and follow-up of the patients in one view.

    A patient is a subject with a dated event other than birth and death. A diagnosis without a date is left out: it
    cannot be placed in a follow-up. One dated after death belongs to ever having it, not to the follow-up.
    """
    dated = view.filter(pl.col("time").is_not_null()).with_columns(day=_day("time"))
    people = _people(view, dated)
    first = (
        dated.select("subject_id", "day", category=pl.col("code").cast(pl.String).str.extract(CATEGORY, 1))
        .drop_nulls("category")
        .group_by("subject_id", "category")
        .agg(pl.col("day").min())
        .sort("subject_id", "category")
    )
    codes = tuple(first["category"].unique().sort().to_list())
    counts = people.join(first.group_by("subject_id").len(), on="subject_id", how="left", maintain_order="left")
    code = first["category"].cast(pl.Enum(codes)).to_physical()
    return Histories(
        codes=codes,
        offsets=np.concatenate([[0], np.cumsum(counts["len"].fill_null(0).to_numpy())]).astype(np.int64),
        code=code.to_numpy().astype(np.int32),
        day=first["day"].to_numpy().astype(np.int32),
        start=people["start"].to_numpy().astype(np.int32),
        end=people["end"].to_numpy().astype(np.int32),
        birth=people["birth"].fill_null(UNKNOWN_BIRTH).to_numpy().astype(np.int32),
        sex=people["sex"].to_numpy().astype(np.int8),
    )


def recode(histories: Histories, codes: tuple[str, ...]) -> Histories:
    """The same histories with their code numbers pointing into ``codes``; other codes are dropped.

    Both lists are sorted, so the order within a patient stays.
    """
    position = {code: index for index, code in enumerate(codes)}
    new = np.array([position.get(code, -1) for code in histories.codes], dtype=np.int32)
    code = new[histories.code] if len(new) else histories.code
    kept = code >= 0
    offsets = np.concatenate([[0], np.cumsum(kept)])[histories.offsets].astype(np.int64)
    return replace(histories, codes=codes, offsets=offsets, code=code[kept], day=histories.day[kept])


def _people(view: pl.DataFrame, dated: pl.DataFrame) -> pl.DataFrame:
    """One row per patient, by subject_id: start, end, birth (days), sex (index into SEXES)."""
    clinical = ~pl.col("code").cast(pl.String).is_in([BIRTH, DEATH])
    days = dated.group_by("subject_id").agg(
        start=pl.col("day").filter(clinical).min(),
        last=pl.col("day").filter(clinical).max(),
        birth=pl.col("day").filter(pl.col("code").cast(pl.String) == BIRTH).min(),
        death=pl.col("day").filter(pl.col("code").cast(pl.String) == DEATH).min(),
    )
    sexes = pl.DataFrame({"gender": [f"GENDER//{sex}" for sex in SEXES[1:]], "sex": [1, 2]})
    gender = (
        view.select("subject_id", gender=pl.col("code").cast(pl.String))
        .join(sexes, on="gender")
        .group_by("subject_id")
        .agg(pl.col("sex").min())
    )
    return (
        days.filter(pl.col("start").is_not_null())
        .join(gender, on="subject_id", how="left")
        .with_columns(end=pl.coalesce("death", "last"), sex=pl.col("sex").fill_null(0))
        .sort("subject_id")
    )


def _day(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Date).cast(pl.Int32)
