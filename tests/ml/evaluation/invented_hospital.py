"""A small invented hospital in a real event log, and answers of models whose quality is chosen."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from ml.cohorts.runs import TrainingRun
from ml.evaluation.rows import write_predictions
from ml.extraction import commit_snapshot
from ml.extraction.log import Partition, write_pending
from ml.extraction.schema import EVENT_SCHEMA
from ml.extraction.writer import ShardWriter
from ml.quality.verdict import Verdict, write_verdict
from ml.settings import get_settings

AS_OF = date(2019, 12, 31)
FIRST = 987_650_000_001  # subject ids that no figure looks like by chance
START = datetime(2010, 1, 1)
RISK_CODE, NOISE = "ICD10CM//I10", tuple(f"ICD10CM//M{k}.{k % 10}" for k in range(10, 40))


def invented_events(subjects: int, seed: int = 7, revealing: float = 0.0) -> pl.DataFrame:
    """Heart failure follows hypertension (I10); nobody dies.

    ``revealing`` adds a code 364 days before this share of heart failures: seen at exactly the index days before one.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, datetime | None, str]] = []
    for subject in range(FIRST, FIRST + subjects):
        sick = rng.random() < 0.4
        rows.append((subject, datetime(1930 + int(rng.integers(0, 60)), 5, 1), "MEDS_BIRTH"))
        rows.append((subject, None, f"GENDER//{'FM'[subject % 2]}"))
        for day in rng.integers(0, 3640, 25):
            rows.append((subject, START + timedelta(days=int(day)), NOISE[int(rng.integers(0, len(NOISE)))]))
        if sick:
            rows.append((subject, START + timedelta(days=int(rng.integers(0, 1500))), RISK_CODE))
        if rng.random() < (0.55 if sick else 0.12):
            event = START + timedelta(days=int(rng.integers(2000, 3640)))
            rows.append((subject, event, "ICD10CM//I50.9"))
            if revealing and rng.random() < revealing:
                rows.append((subject, event - timedelta(days=364), "ICD10CM//Z99.9"))
    frame = pl.DataFrame(
        rows, schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String}, orient="row"
    )
    return frame.with_row_index("key").with_columns(
        recorded_at=pl.col("time").fill_null(START).clip(START), source_key=pl.format("invented/{}", "key")
    )


def true_risks(labels: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The oracle's answers: labels of heart failure with the probability that the invented hospital draws from.

    Everybody with hypertension shows it by the first index day (day 1,499 at the latest), and no other code tells.
    """
    labels = labels.filter(pl.col("split") != "train")
    start = (labels["prediction_time"] - START).dt.total_days().to_numpy()
    window = (np.minimum(start + 365, 3640) - start) / 1640
    sick = labels["subject_id"].is_in(events.filter(pl.col("code") == RISK_CODE)["subject_id"].implode()).to_numpy()
    chance = np.where(sick, 0.55, 0.12)
    p = chance * window / (1 - chance * (start - 2000) / 1640)
    return labels.with_columns(predicted_boolean_probability=pl.Series(p), task=pl.lit("heart_failure"))


def commit(events: pl.DataFrame) -> None:
    """Write the events as the base load of a log and commit its snapshot."""
    full = events.with_columns(
        numeric_value=pl.lit(None, pl.Float32),
        text_value=pl.lit(None, pl.String),
        visit_id=pl.lit(None, pl.Int64),
        removed=pl.lit(False),
    ).select(EVENT_SCHEMA.names)
    shards = get_settings().shards
    source = {"name": "invented", "schema": "none", "hospital": "invented"}
    partition = Partition(AS_OF, None, AS_OF, source, "kept", shards, "attempt")
    writer = ShardWriter(partition.path, shards, 65_536)
    with writer:
        for batch in full.to_arrow().cast(EVENT_SCHEMA).to_batches():
            writer.write("invented", batch)
    rows, vocabularies = dict(writer.rows), dict(writer.vocabularies)
    partition = replace(partition, rows=rows, vocabularies=vocabularies, files=writer.files)
    write_pending(partition)
    write_verdict(partition, Verdict(AS_OF, passed=True, empty=False, rows=full.height, quarantined=0))
    commit_snapshot(AS_OF)


def answer(run: TrainingRun, model: str, noise: float, seed: int = 0) -> None:
    """Predictions of an invented model: the label seen through noise, on tuning and held-out rows."""
    rng = np.random.default_rng(seed)
    frames = []
    for task in get_settings().tasks:
        labels = pl.read_parquet(run.labels(task)).filter(pl.col("split") != "train")
        score = labels["boolean_value"].to_numpy() + rng.normal(0, noise, len(labels)) - 2.5
        p = pl.Series("predicted_boolean_probability", 1 / (1 + np.exp(-score)))
        frames.append(labels.with_columns(p, task=pl.lit(task)))
    write_predictions(run, model, frames)
