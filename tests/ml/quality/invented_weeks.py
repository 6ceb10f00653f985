"""Five weeks of nights that differ only by chance, as partitions with their ``codes.parquet``, to be made bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from ml.extraction.log import CODES, FileRecord, Partition

LAST = date(2024, 2, 29)
NIGHTS = 42
KIND, OTHER = "condition_occurrence", "measurement"
USUAL = {f"ICD10CM//I{n}": 20 for n in range(10, 20)}
Codes = Mapping[str, int]


def night(day: date, codes: Codes, labs: int = 100) -> Partition:
    """A night's partition: its diagnoses, and some laboratory values of one kind."""
    rows = {KIND: sum(codes.values()), OTHER: labs}
    found = Partition(day, day, day, {}, "kept", 1, "a", rows, days={str(day): sum(rows.values())})
    frame = pl.DataFrame(
        {"kind": [KIND] * len(codes) + [OTHER], "code": [*codes, "LOINC//4548-4"], "rows": [*codes.values(), labs]}
    )
    found.path.mkdir(parents=True, exist_ok=True)
    frame.filter(pl.col("rows") > 0).write_parquet(str(found.path / CODES))
    return replace(found, files={CODES: FileRecord("", 0, 0)})


def weeks(recent: Codes = USUAL, usual: Codes = USUAL, nights: int = NIGHTS) -> list[Partition]:
    """Nights up to ``LAST``; the last seven have other codes."""
    days = [LAST - timedelta(days=back) for back in range(nights)]
    return [night(day, recent if (LAST - day).days < 7 else usual, 95 + day.day % 10) for day in reversed(days)]
