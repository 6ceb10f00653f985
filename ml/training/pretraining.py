"""Pretraining: masked codes of train-split patients, in the view at t1."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ml.cohorts import TrainingRun
from ml.common.progress import Progress
from ml.models.files import finished, save_model
from ml.models.medbert import Inputs, MedBert
from ml.sequences.batches import Batch
from ml.settings import get_settings
from ml.training.budget import Budget, batches
from ml.training.data import pretraining_data
from ml.training.masking import Masked, mask_codes
from ml.training.optimisation import optimiser, step
from ml.training.parallel import Replicas, grouped
from ml.training.precision import autocast, device
from ml.training.records import Record
from ml.training.setup import Setup, model_for, setup, weights_digest

log = logging.getLogger(__name__)


def pretrain(run: TrainingRun, initial: Path | None = None) -> Path:
    """Write ``run.pretrained``; a finished one with the same inputs is kept.

    Args:
        run: sequences must be prepared.
        initial: folder of a model to start from, with a smaller budget.

    Raises:
        VigilError: sequences are absent, the loss is not finite, or the initial model does not fit.
    """
    ready = setup(run, "pretrain", initial=weights_digest(initial) if initial else None)
    if finished(run.pretrained, ready.digest):
        log.info("pretrain: already done for these inputs")
        return run.pretrained
    model = model_for(ready, initial).to(device())
    record = train(model, run, ready, ready.preset.warm_start if initial else 1.0)
    save_model(run.pretrained, model, ready.vocabulary, {**record.finish(), "inputs": ready.digest, **ready.inputs})
    return run.pretrained


def train(model: MedBert, run: TrainingRun, ready: Setup, share: float) -> Record:
    """Spend the budget of masked language modelling on a model."""
    stage, longest = ready.preset.pretraining, ready.preset.longest
    source = pretraining_data(run, ready.vocabulary)
    budget = Budget.of(stage, int(source.lengths(longest).sum()), share)
    progress, record = Progress("pretrain", budget.tokens), Record("pretrain", budget)
    optimizer, rng = optimiser(model, stage), np.random.default_rng(ready.inputs["seed"])
    replicas = Replicas(model, stage.micro_batches, get_settings().threads, ready.inputs["seed"])
    stream = batches(source, longest, stage.batch_positions, budget, ready.inputs["seed"])
    for group in grouped(stream, stage.micro_batches):
        masked = [(batch, mask_codes(batch, stage.masked, model.config.vocab_size, rng)) for batch, _ in group]
        loss = replicas.gradients([partial(mlm_loss, batch=batch, masked=hidden) for batch, hidden in masked])
        seen = group[-1][1]
        record.add(step(model, optimizer, loss, stage, seen / budget.tokens), seen)
        progress.report(min(seen, budget.tokens), f"loss {record.recent:.3f}, {record.speed:,.0f} tokens/s")
    replicas.close()
    return record


def mlm_loss(model: MedBert, batch: Batch, masked: Masked) -> torch.Tensor:
    """Cross-entropy of the hidden codes, decoded at their positions only."""
    where = model.device
    inputs = replace(Inputs.of(batch, where), tokens=torch.from_numpy(masked.tokens).long().to(where))
    with autocast(where):
        logits = model.masked_codes(inputs, torch.from_numpy(masked.positions).to(where))
    if not logits.shape[0]:  # a batch of static tokens alone
        return logits.sum()
    return functional.cross_entropy(logits.float(), torch.from_numpy(masked.targets).to(where))
