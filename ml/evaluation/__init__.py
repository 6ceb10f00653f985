"""Predictions and labels of a training run come in; baselines on the same rows and one comparison go out.

Every metric carries a 95 % interval from one bootstrap over patients that all models share, so that their
differences are paired. The result is ``evaluation.json`` (``ml.evaluation.results.Evaluation``): aggregates
only, no patient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml.evaluation.results import Estimate, Evaluation, ModelResult, TaskResult

if TYPE_CHECKING:
    from ml.cohorts.runs import TrainingRun

__all__ = ["Estimate", "Evaluation", "ModelResult", "TaskResult", "evaluate"]


def evaluate(run: TrainingRun) -> Evaluation:
    """Train the baselines, judge every model of the run, write ``run.evaluation`` (see ``ml.evaluation.evaluate``)."""
    from ml.evaluation.judge import judge  # scikit-learn and numba

    return judge(run)
