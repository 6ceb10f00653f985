"""Small event views, written by hand or drawn from a known process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ml.interconnections.cohort import Cohort, Histories, build_cohort

AS_OF = date(2020, 12, 31)
Event = tuple[int, int | None, str]  # subject, day from 1970-01-01 or static, code


@pytest.fixture(scope="session")
def view() -> Callable[[Iterable[Event]], pl.DataFrame]:
    """Events as ``read_view`` gives them."""

    def make(events: Iterable[Event]) -> pl.DataFrame:
        rows = list(events)
        epoch = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
        return pl.DataFrame(
            {
                "subject_id": [subject for subject, _, _ in rows],
                "time": [None if day is None else epoch + timedelta(days=day, hours=9) for _, day, _ in rows],
                "code": [code for _, _, code in rows],
            },
            schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String},
        )

    return make


@pytest.fixture(scope="session")
def cohort_of(view: Callable[[Iterable[Event]], pl.DataFrame]) -> Callable[..., Cohort]:
    """A cohort from one list of events per shard."""

    def make(*shards: list[Event], min_cell: int = 1) -> Cohort:
        return build_cohort([view(events) for events in shards], min_cell, AS_OF, "d" * 64)

    return make


@pytest.fixture(scope="session")
def chance() -> Cohort:
    """2,000 patients whose diagnoses know nothing of each other; 30 codes, the first ones common."""
    draw = np.random.default_rng(1)
    patients, codes = 2_000, 30
    has = draw.random((patients, codes)) < 0.3 / np.sqrt(np.arange(1, codes + 1))
    row, code = np.nonzero(has)
    start = draw.integers(12_000, 13_000, patients)
    histories = Histories(
        codes=tuple(f"ICD10CM//A{number:02d}" for number in range(codes)),
        offsets=np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int64),
        code=code.astype(np.int32),
        day=(start[row] + draw.integers(0, 4_000, len(row))).astype(np.int32),
        start=start.astype(np.int32),
        end=(start + 4_000).astype(np.int32),
        birth=(start - draw.integers(20, 80, patients) * 365).astype(np.int32),
        sex=draw.integers(1, 3, patients).astype(np.int8),
    )
    return Cohort((histories,), histories.codes, 0, AS_OF, "d" * 64)
