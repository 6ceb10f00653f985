"""Predictions of a trained model, in the MEDS evaluation schema."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl

from ml.cohorts import TrainingRun, prediction_time, read_labels
from ml.common.files import read_json, write_bytes, write_json
from ml.models.files import RECORD
from ml.models.medbert import load_model
from ml.sequences import load_vocabulary
from ml.training.data import Labelled, labelled_data
from ml.training.inference import risks_of
from ml.training.precision import device


def write_predictions(run: TrainingRun, folder: Path, name: str) -> None:
    """Risks of tuning and held-out patients at every index day they are eligible at; kept where up to date.

    Args:
        run: the training run.
        folder: of the model.
        name: under which the evaluation judges it.
    """
    path = run.predictions(name)
    stamp = path.with_suffix(".json")
    record = read_json(folder / RECORD)
    made_from = {"weights": record["weights"], "inputs": record["inputs"]}
    if path.exists() and stamp.exists() and read_json(stamp) == made_from:
        return
    model = load_model(folder).to(device())
    tasks = tuple(model.config.outcomes)
    vocabulary = load_vocabulary(folder / "vocabulary.json")
    data = labelled_data(run, vocabulary, tasks, ("tuning", "held_out"), run.index_days)
    frame = _frame(run, data, tasks, risks_of(model, data.source))
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    stamp.unlink(missing_ok=True)
    write_bytes(path, buffer.getvalue())
    write_json(stamp, made_from)


def _frame(run: TrainingRun, data: Labelled, tasks: tuple[str, ...], risks: np.ndarray) -> pl.DataFrame:
    times = np.array([prediction_time(day) for day in run.index_days], "datetime64[us]")
    frames = []
    for column, task in enumerate(tasks):
        known = ~np.isnan(data.labels[:, column])
        frames.append(
            pl.DataFrame(
                {
                    "subject_id": data.subjects[known],
                    "prediction_time": times[data.index[known] - 1],
                    "boolean_value": data.labels[known, column] > 0.5,
                    "predicted_boolean_probability": risks[known, column].astype(np.float64),
                }
            ).with_columns(task=pl.lit(task))
        )
    splits = pl.concat([read_labels(run, task).select("subject_id", "split") for task in tasks]).unique()
    frame = pl.concat(frames).join(splits, on="subject_id", how="left")
    return (
        frame.with_columns(predicted_boolean_value=pl.lit(None, dtype=pl.Boolean))
        .select(
            "subject_id",
            "prediction_time",
            "boolean_value",
            "predicted_boolean_value",
            "predicted_boolean_probability",
            "task",
            "split",
        )
        .sort("task", "subject_id", "prediction_time")
    )
