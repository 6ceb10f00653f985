"""What a trained model is worth on held-out patients: loss on masked codes, macro AUROC of the outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ml.cohorts import TrainingRun, prediction_time
from ml.models.medbert import load_model
from ml.sequences import gather, load_vocabulary, plan
from ml.training.data import pretraining_data
from ml.training.judge import auroc
from ml.training.pretraining import masked_codes

POSITIONS = 4_096


def masked_loss(folder: Path, run: TrainingRun, share: float = 0.2, seed: int = 7) -> float:
    """Mean cross-entropy (nats) of hidden codes of held-out patients at t1; the same codes for every model on the
    same vocabulary and form."""
    model = load_model(folder)
    source = pretraining_data(run, load_vocabulary(folder / "vocabulary.json"), "held_out")
    rng, total, hidden = np.random.default_rng(seed), 0.0, 0
    with torch.inference_mode():
        for items in plan(source.lengths(model.form), POSITIONS):
            work = masked_codes(gather(source, items, model.form), rng, share, model.config.vocab_size)
            total += float(work.sums(model)[0])
            hidden += int(work.counts[0])
    return total / hidden


def macro_auroc(run: TrainingRun) -> float:
    """Mean AUROC of Med-BERT over the run's outcomes, held-out patients at t1."""
    frame = pl.read_parquet(run.predictions("medbert"))
    now = frame.filter((pl.col("split") == "held_out") & (pl.col("prediction_time") == prediction_time(run.test_day)))
    return float(np.nanmean([_auroc(rows) for _, rows in now.group_by("task")]))


def _auroc(rows: pl.DataFrame) -> float:
    labels: npt.NDArray[np.float64] = rows["boolean_value"].cast(pl.Float64).to_numpy()
    return auroc(labels, rows["predicted_boolean_probability"].to_numpy())
