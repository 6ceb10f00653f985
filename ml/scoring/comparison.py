"""The champion on a challenger's rows, so that the two are judged on the same patients and days."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ml.cohorts import read_labels
from ml.common.files import write_bytes
from ml.extraction import read_view
from ml.scoring.scores import score_view
from ml.sequences.tokens import COLUMNS
from ml.settings import get_settings

if TYPE_CHECKING:
    from ml.cohorts import TrainingRun

log = logging.getLogger(__name__)


def predict_with_champion(run: TrainingRun) -> Path | None:
    """Write ``predictions/champion.parquet`` of a run: tuning and held-out rows at every index day.

    The champion sees the very views it would have been given on those days. An outcome it does not know is left out.
    Returns None where there is no champion, or where it knows none of the outcomes; no earlier file is left then.
    """
    from ml.registry import champion

    found, path = champion(), run.predictions("champion")
    if found is None:
        path.unlink(missing_ok=True)
        return None
    labels = pl.concat([read_labels(run, task).with_columns(task=pl.lit(task)) for task in get_settings().tasks])
    predictions = _predictions(run, found.finetuned, labels)
    if predictions.is_empty():
        log.warning("version %d knows no outcome of this run: it is not compared", found.version)
        path.unlink(missing_ok=True)
        return None
    buffer = io.BytesIO()
    predictions.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())
    return path


def _predictions(run: TrainingRun, model_dir: Path, labels: pl.DataFrame) -> pl.DataFrame:
    """The MEDS evaluation schema plus task and split, for every judged label row the model has a risk for."""
    judged = labels.filter(pl.col("split") != "train")
    frames = []
    for number, day in enumerate(run.index_days, 1):
        wanted = judged.filter(pl.col("index") == number)
        for shard in range(run.snapshot.shards):
            view = read_view(run.snapshot, day, shard, COLUMNS)
            view = view.filter(pl.col("subject_id").is_in(wanted["subject_id"].unique().to_list()))
            if view.is_empty():
                continue
            scores = score_view(view, day, model_dir).filter(pl.col("in_scope"))
            scores = scores.select("subject_id", task="outcome", predicted_boolean_probability="risk")
            frames.append(wanted.join(scores, on=["subject_id", "task"]))
    found = pl.concat(frames) if frames else judged.head(0).with_columns(predicted_boolean_probability=0.0)
    return found.select(
        "subject_id",
        pl.col("prediction_time").cast(pl.Datetime("us")),
        "boolean_value",
        pl.col("predicted_boolean_probability").cast(pl.Float64),
        "task",
        "split",
    ).sort("task", "subject_id", "prediction_time")
