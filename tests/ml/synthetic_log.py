"""An invented hospital as a committed event log, with a planted signal, made without Postgres.

People have chronic diseases that come back in their records. Most heart failure is announced by breathlessness some
200 to 900 days earlier, type 2 diabetes by a raised HbA1c; death comes with age.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml.extraction.log import Partition, write_committed
from ml.extraction.schema import EVENT_SCHEMA
from ml.extraction.snapshot import Snapshot
from ml.extraction.snapshots import save_snapshot
from ml.extraction.view import COLUMNS, ORDER
from ml.extraction.writer import ShardWriter
from ml.settings import get_settings

END = date(2024, 6, 30)
YEARS = 12
CHRONIC = {"ICD10CM//I10": 0.30, "ICD10CM//I48.91": 0.10, "ICD10CM//E66.9": 0.20, "ICD10CM//J44.9": 0.08}
NOISE = [f"ICD10CM//{letter}{number:02d}.{digit}" for letter in "KLMN" for number in range(20, 45) for digit in (0, 9)]
A1C = "LOINC//4548-4"
DRUGS = ["ATC//C07AB02", "ATC//A02BC01", "ATC//N02BE01", "ATC//J01CA04"]


def make_events(patients: int, events: int, seed: int = 7) -> pl.DataFrame:
    """Events of ``patients`` people, about ``events`` each, columns of EVENT_SCHEMA, in log order."""
    rng = np.random.default_rng(seed)
    start = np.datetime64(END) - np.timedelta64(YEARS * 365, "D")
    days = YEARS * 365
    subject = np.arange(1, patients + 1)
    age = rng.uniform(25, 85, patients)  # at the start
    female = rng.random(patients) < 0.5
    has = np.stack([rng.random(patients) < share for share in CHRONIC.values()], axis=1)
    a1c = rng.normal(5.4, 0.4, patients)
    old = (age - 55) / 15
    hf, t2d = (_onset(rng, np.full(patients, 0.02), days) for _ in range(2))
    hf_sign, t2d_sign = hf - rng.integers(200, 900, patients), t2d - rng.integers(200, 900, patients)
    death = _onset(rng, 0.008 * np.exp(0.9 * old), days)
    per = rng.poisson(events * 0.8, patients)
    who = np.repeat(subject - 1, per)
    when = rng.integers(0, days, who.size)
    kind = rng.random(who.size)
    code = rng.choice(np.array(NOISE), who.size).astype(object)
    chronic = rng.integers(0, len(CHRONIC), who.size)
    names = np.array(list(CHRONIC), object)
    sick = (kind < 0.35) & has[who, chronic]
    code[sick] = names[chronic[sick]]
    code[(kind > 0.6) & (kind < 0.8)] = rng.choice(np.array(DRUGS), int(((kind > 0.6) & (kind < 0.8)).sum()))
    lab = kind > 0.8
    code[lab] = A1C
    value = np.where(lab, a1c[who] + 2.0 * (when >= t2d_sign[who]) + rng.normal(0, 0.15, who.size), np.nan)
    parts = [_frame(who, when, code, value)]
    for sign, name, level in ((hf_sign, "ICD10CM//R06.0", np.full(patients, np.nan)), (t2d_sign, A1C, a1c + 2.0)):
        told = np.flatnonzero((sign >= 0) & (sign < days) & (rng.random(patients) < 0.9))
        parts.append(_frame(told, sign[told], np.full(told.size, name, object), level[told]))
    for onset, name in ((hf, "ICD10CM//I50.9"), (t2d, "ICD10CM//E11.9")):
        ill = np.flatnonzero(onset < days)
        again = [np.minimum(onset[ill] + gap, days - 1) for gap in (0, 200, 500)]
        parts += [_frame(ill, at, np.full(ill.size, name, object), np.full(ill.size, np.nan)) for at in again]
    gone = np.flatnonzero(death < days)
    parts.append(_frame(gone, death[gone], np.full(gone.size, "MEDS_DEATH", object), np.full(gone.size, np.nan)))
    frame = pl.concat(parts)
    frame = frame.filter(pl.col("day") <= pl.Series(death)[frame["who"]])
    frame = frame.with_columns(time=pl.lit(start).cast(pl.Datetime("us")) + pl.duration(days=pl.col("day"), hours=10))
    born = pl.lit(start).cast(pl.Datetime("us")) - pl.duration(days=pl.Series((age * 365.25).astype(int)))
    people = pl.DataFrame({"who": subject - 1}).with_columns(code=pl.lit("MEDS_BIRTH"), time=born, value=pl.lit(None))
    sexes = pl.DataFrame({"who": subject - 1, "code": np.where(female, "GENDER//F", "GENDER//M")}).with_columns(
        time=pl.lit(None, dtype=pl.Datetime("us")), value=pl.lit(None)
    )
    columns = ["who", "code", "time", pl.col("value").cast(pl.Float32)]
    return as_events(pl.concat([part.select(columns) for part in (frame, people, sexes)]))


def as_events(rows: pl.DataFrame) -> pl.DataFrame:
    """``who, code, time, value`` (and maybe ``recorded_at``) in the event schema; recorded on the day itself."""
    begin = datetime.combine(END, datetime.min.time()) - timedelta(days=YEARS * 365)
    recorded = pl.col("recorded_at") if "recorded_at" in rows.columns else pl.lit(None, dtype=pl.Datetime("us"))
    return (
        rows.with_row_index("n")
        .with_columns(
            subject_id=pl.col("who").cast(pl.Int64) + 1,
            numeric_value=pl.col("value").fill_nan(None),
            text_value=pl.lit(None, dtype=pl.String),
            visit_id=pl.lit(None, dtype=pl.Int64),
            recorded_at=pl.coalesce(recorded, pl.max_horizontal(pl.col("time"), pl.lit(begin)), pl.lit(begin)),
            source_key=pl.format("row/{}", pl.col("n")),
            removed=pl.lit(False),
        )
        .select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
        .sort(ORDER, nulls_last=False)
    )


def commit(events: pl.DataFrame, shards: int = 2, as_of: date = END, digest: str = "0123456789abcdef") -> Snapshot:
    """Write events as one committed partition and its snapshot into VIGIL_HOME."""
    partition = Partition(as_of, None, as_of, {"name": "synthetic"}, "kept", shards, "attempt")
    with ShardWriter(partition.path, shards, 65_536) as writer:
        for batch in events.to_arrow().cast(EVENT_SCHEMA).to_batches():
            writer.write("row", batch)
    write_committed(replace(partition, rows={"row": events.height}, files=writer.files))
    snapshot = Snapshot(as_of, digest, (partition.name,), {}, events["subject_id"].n_unique(), shards)
    save_snapshot(snapshot)
    return snapshot


def _onset(rng: np.random.Generator, yearly: np.ndarray, days: int) -> np.ndarray:
    """Day of onset at a constant yearly rate; ``days`` or later means never seen."""
    return (rng.exponential(1.0, yearly.size) / yearly * 365).clip(max=10 * days).astype(np.int64)


def _frame(who: np.ndarray, day: np.ndarray, code: np.ndarray, value: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"who": who, "day": day, "code": code.astype(str), "value": value.astype(np.float64)})


@contextmanager
def deployment(home: Path, **settings: str) -> Iterator[None]:
    """``VIGIL_HOME`` at an empty directory and the given settings; the caller's own are taken away meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VIGIL_") and name != "VIGIL_TEST_DATA"]:
            patch.delenv(name)
        patch.setenv("VIGIL_HOME", str(home))
        patch.setenv("VIGIL_PRESET", "tiny")
        for name, value in settings.items():
            patch.setenv(f"VIGIL_{name.upper()}", value)
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


def event(
    who: int, code: str, time: str | None, recorded: str | None = None, value: float | None = None
) -> pl.DataFrame:
    """One row for `as_events`; subject ``who`` has the id ``who + 1``."""
    at = None if time is None else datetime.fromisoformat(time)
    known = None if recorded is None else datetime.fromisoformat(recorded)
    row = {"who": who, "code": code, "time": at, "value": value, "recorded_at": known}
    kinds = {"time": pl.Datetime("us"), "recorded_at": pl.Datetime("us"), "value": pl.Float64}
    return pl.DataFrame([row], schema_overrides=kinds)


def person(who: int, born: str = "1960-05-01", sex: str = "F") -> pl.DataFrame:
    """Birth and sex of one subject, known from the start."""
    return pl.concat([event(who, "MEDS_BIRTH", born), event(who, f"GENDER//{sex}", None)])
