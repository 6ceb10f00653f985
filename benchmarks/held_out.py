"""What a trained model is worth on held-out patients: loss on masked codes, macro AUROC of the outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.cohorts import TrainingRun, prediction_time
from ml.models.medbert import load_model
from ml.sequences import load_vocabulary
from ml.training.data import pretraining_data
from ml.training.judge import auroc
from ml.training.pretraining import masked_loss


def held_out_loss(folder: Path, run: TrainingRun) -> float:
    """Mean cross-entropy (nats) of hidden codes of held-out patients at t1."""
    vocabulary = load_vocabulary(folder / "vocabulary.json")
    return masked_loss(load_model(folder), pretraining_data(run, vocabulary, "held_out"))


def macro_auroc(run: TrainingRun) -> float:
    """Mean AUROC of Med-BERT over the run's outcomes, held-out patients at t1."""
    frame = pl.read_parquet(run.predictions("medbert"))
    now = frame.filter((pl.col("split") == "held_out") & (pl.col("prediction_time") == prediction_time(run.test_day)))
    return float(np.nanmean([_auroc(rows) for _, rows in now.group_by("task")]))


def _auroc(rows: pl.DataFrame) -> float:
    labels: npt.NDArray[np.float64] = rows["boolean_value"].cast(pl.Float64).to_numpy()
    return auroc(labels, rows["predicted_boolean_probability"].to_numpy())
