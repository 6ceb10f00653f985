"""Risks of a few subjects from their events, as the registered model gives them. Imports torch."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from ml.models.medbert import load_model
from ml.sequences import Item, load_vocabulary, tokenise
from ml.training.inference import risks_of

_COLUMNS = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}


class Predictor:
    """A model and its vocabulary, loaded once.

    Args:
        folder: of a fine-tuned model.
    """

    def __init__(self, folder: Path) -> None:
        self.model = load_model(folder)
        self.vocabulary = load_vocabulary(folder / "vocabulary.json")

    def predict(self, events: pd.DataFrame, as_of: str) -> pd.DataFrame:
        """One row per subject and outcome: subject_id, outcome, horizon_days, risk.

        Everybody who is asked for gets a risk: whether a risk means something for them (age, prior outcome, recent
        events) is not judged here.

        Args:
            events: subject_id, time (NaT: static), code, numeric_value (may be absent).
            as_of: ISO 8601; later events are not looked at.
        """
        if "numeric_value" not in events.columns:
            events = events.assign(numeric_value=np.nan)
        view = pl.from_pandas(events[list(_COLUMNS)]).cast(_COLUMNS)  # type: ignore[arg-type]
        sequences = tokenise(view, date.fromisoformat(as_of), self.vocabulary)
        count = sequences.subjects.size
        risks = risks_of(self.model, Item([sequences], np.zeros(count, np.int64), np.arange(count)))
        outcomes = list(self.model.config.outcomes)
        return pd.DataFrame(
            {
                "subject_id": np.repeat(np.asarray(sequences.subjects), len(outcomes)),
                "outcome": outcomes * count,
                "horizon_days": list(self.model.config.horizons) * count,
                "risk": risks.astype(np.float64).reshape(-1),
            }
        )
