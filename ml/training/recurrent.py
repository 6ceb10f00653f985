"""The recurrent baseline of Med-BERT's paper: preset `gru` on the rows of fine-tuning, from random weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from ml.cohorts import TrainingRun, load_tasks
from ml.models import load_preset
from ml.models.files import finished
from ml.settings import get_settings
from ml.training.finetuning import checked_labels, train, with_heads
from ml.training.predict import write_predictions
from ml.training.setup import model_for, placed, setup
from ml.training.world import world

log = logging.getLogger(__name__)

PRESET = "gru"


def train_recurrent(run: TrainingRun, halvings: int = 0) -> Path:
    """Write ``run.recurrent`` and ``run.predictions("gru")``, which the evaluation then judges; finished ones with the
    same inputs are kept.

    It learns from the rows that `finetune` learns from, stops on the same tuning rows and is calibrated on them.

    Args:
        run: sequences must be prepared, and labels made.
        halvings: of the positions of a micro-batch, where the device's memory is known to be short.

    Raises:
        VigilError: an input is absent, or the loss is not finite.
        StoppedError: the process was asked to stop; the next call goes on.
    """
    tasks, preset = load_tasks(get_settings().tasks), load_preset(PRESET)
    labels = checked_labels(run, tasks)
    ready = setup(run, "recurrent", tasks=[task.name for task in tasks], labels=labels)
    ready = replace(ready, preset=preset, inputs={**ready.inputs, "preset": preset.model_dump()})
    if finished(run.recurrent, ready.digest):
        log.info("recurrent: already done for these inputs")
    else:
        model = placed(with_heads(model_for(ready, None), tasks, ready.vocabulary))
        train(model, run, ready, 1.0, halvings, "recurrent", run.recurrent)
    if world().first:
        write_predictions(run, run.recurrent, PRESET)
    return run.recurrent
