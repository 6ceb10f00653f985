"""The evaluation's baselines on rows of an experiment: logistic regression and LightGBM on counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from ml.evaluation.baselines import PENALTIES, TaskRows, fit_boosting, fit_logistic, make_design
from ml.evaluation.features import Features, make_features
from ml.evaluation.results import LIGHTGBM
from ml.experiments.hospital import Hospital
from ml.training.data import Labelled

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Counted:
    """Features of the rows of some labelled data, in their order, one part after the other."""

    features: Features
    rows: tuple[Rows, ...]

    @classmethod
    def of(cls, place: Hospital, *parts: Labelled) -> Counted:
        """The features of these parts."""
        frames = [place.keys(data) for data in parts]
        features = make_features(place.run, frames)
        return cls(features, tuple(features.find(frame) for frame in frames))

    def logits(
        self, model: str, train: tuple[Rows, NDArray[np.float32]], stop: tuple[Rows, NDArray[np.float32]], judge: Rows
    ) -> NDArray[np.float64]:
        """``[judge, tasks]`` of a baseline, one fit per task.

        Args:
            train: feature rows to learn from, and their labels ``[rows, tasks]``, NaN where not eligible.
            stop: as ``train``, to choose penalty or trees on.
            judge: feature rows that are answered.
        """
        design = make_design(self.features, train[0])
        fit: Callable[[TaskRows], NDArray[np.float64]] = (
            partial(fit_boosting, design.counts) if model == LIGHTGBM else partial(_logistic, design.linear)
        )
        answers = []
        for column in range(train[1].shape[1]):
            known = [(rows, labels[:, column]) for rows, labels in (train, stop)]
            (rows, y), (others, z) = [(rows[~np.isnan(label)], label[~np.isnan(label)] > 0.5) for rows, label in known]
            answers.append(fit(TaskRows(rows, y, others, z, pl.DataFrame(), judge)))
        p = np.clip(np.stack(answers, axis=1), 1e-9, 1 - 1e-9)
        return np.asarray(np.log(p / (1 - p)))


def _logistic(design: sp.csr_matrix, rows: TaskRows) -> NDArray[np.float64]:
    return fit_logistic(design, rows, PENALTIES)
