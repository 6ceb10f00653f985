"""Training: token stores and labels of a run come in; a pretrained and a fine-tuned model and predictions go out.

`launch` and `launch_search` run a stage in a fresh interpreter, as tasks must; `pretrain` and `finetune` run it here
and import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ml.training.launch import launch, launch_search

if TYPE_CHECKING:
    from ml.cohorts.runs import TrainingRun

__all__ = ["finetune", "launch", "launch_search", "pretrain"]


def pretrain(run: TrainingRun, initial: Path | None = None) -> Path:
    """Masked language modelling → ``run.pretrained`` (see ``ml.training.pretraining``)."""
    from ml.training.pretraining import pretrain as work

    return work(run, initial)


def finetune(run: TrainingRun) -> Path:
    """Multi-outcome fine-tuning → ``run.finetuned`` and predictions (see ``ml.training.finetuning``)."""
    from ml.training.finetuning import finetune as work

    return work(run)
