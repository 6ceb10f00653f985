"""Pretraining: masked codes of train-split patients, in the view at t1."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ml.cohorts import TrainingRun
from ml.models.files import finished, save_model
from ml.models.inputs import Inputs, send
from ml.models.medbert import MedBert
from ml.sequences.batches import Batch, Item, gather, plan
from ml.training.budget import Budget
from ml.training.course import Course
from ml.training.data import pretraining_data
from ml.training.engine import Engine
from ml.training.masking import Masked, mask_codes
from ml.training.parallel import Work
from ml.training.precision import autocast
from ml.training.replay import has_news, last_day_seen, mixed
from ml.training.sampler import Draw, Source
from ml.training.setup import Setup, model_for, placed, setup, weights_digest
from ml.training.world import world

log = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]
JUDGED_POSITIONS = 4_096  # per batch of `masked_loss`


def pretrain(run: TrainingRun, initial: Path | None = None, halvings: int = 0) -> Path:
    """Write ``run.pretrained``; a finished one with the same inputs is kept.

    Args:
        run: sequences must be prepared.
        initial: folder of a model to start from, with a smaller budget.
        halvings: of the positions of a micro-batch, where the device's memory is known to be short.

    Raises:
        VigilError: sequences are absent, the loss is not finite, or the initial model does not fit.
        StoppedError: the process was asked to stop; the next call goes on.
    """
    ready = setup(run, "pretrain", initial=weights_digest(initial) if initial else None)
    if finished(run.pretrained, ready.digest):
        log.info("pretrain: already done for these inputs")
        return run.pretrained
    model = placed(model_for(ready, initial))
    share = ready.preset.warm_start if initial else 1.0
    todo = replace(course(model, run, ready, share, initial), halvings=halvings)
    record = Engine(model, todo).run()
    if world().first:
        save_model(run.pretrained, model, ready.vocabulary, {**record.finish(), "inputs": ready.digest, **ready.inputs})
        todo.checkpoints.remove()
    return run.pretrained


def course(model: MedBert, run: TrainingRun, ready: Setup, share: float, initial: Path | None = None) -> Course:
    """Masked language modelling with a share of the preset's budget, after ``initial`` on a mix of new and old."""
    stage = ready.preset.pretraining
    data = pretraining_data(run, ready.vocabulary)
    draw, likely = _mix(data, run, ready, initial)
    source = Source(data.lengths(model.form), partial(gather, data, form=model.form), draw)
    objective = partial(
        masked_codes,
        share=stage.masked,
        vocabulary=model.config.vocab_size,
        one_code=stage.one_code,
        long_stay=stage.long_stay,
    )
    budget = Budget.of(stage, round(float((source.lengths * likely).sum())), share)
    return Course("pretrain", stage, source, objective, budget, ready.inputs["seed"], ready.digest, run.path)


def _mix(data: Item, run: TrainingRun, ready: Setup, initial: Path | None) -> tuple[Draw | None, Float64]:
    seen = last_day_seen(initial) if initial else None
    if seen is None or ready.preset.replay is None:
        return None, np.ones(data.row.size)
    return mixed(has_news(data, (run.test_day - seen).days), ready.preset.replay)


def masked_codes(
    batch: Batch,
    rng: np.random.Generator,
    share: float,
    vocabulary: int,
    one_code: bool = False,
    long_stay: float = 0.0,
) -> Work:
    """Hide codes of a batch; the loss counts each hidden code alike, and each patient's long stay where weighted."""
    masked = mask_codes(batch, share, vocabulary, rng, one_code)
    counts = [masked.targets.size, batch.lengths.size] if long_stay else [masked.targets.size]
    loss = partial(mlm_loss, batch=batch, masked=masked, long_stay=long_stay)
    return Work(np.array(counts, np.float64), loss, int(batch.lengths.sum()))


def mlm_loss(model: nn.Module, batch: Batch, masked: Masked, long_stay: float = 0.0) -> torch.Tensor:
    """``[1]``: cross-entropy of the hidden codes, summed, decoded at their positions only.

    Args:
        long_stay: weight of a second part ``[2]``, the cross-entropy of the long stays (Rasmy 2021); 0 leaves it out.
    """
    assert isinstance(model, MedBert)
    where = model.device
    inputs = Inputs.of(batch, where, masked.tokens)
    hidden_codes = send(np.flatnonzero(masked.positions), where)
    with autocast(where):
        hidden = model.encode(inputs)
        logits = model.decode(hidden.flatten(0, 1).index_select(0, hidden_codes))
        stays = model.long_stay(hidden, inputs) if long_stay else None
    codes = functional.cross_entropy(logits.float(), send(masked.targets, where), reduction="sum")
    if stays is None:
        return codes[None]
    had = send(batch.long_stays, where).float()
    return torch.stack(
        (codes, long_stay * functional.binary_cross_entropy_with_logits(stays.float(), had, reduction="sum"))
    )


def masked_loss(model: MedBert, source: Item, share: float = 0.2, seed: int = 7) -> float:
    """Mean cross-entropy (nats) of hidden codes; the same codes for every model on the same vocabulary and form."""
    rng, total, hidden, was_training = np.random.default_rng(seed), 0.0, 0, model.training
    model.eval()
    with torch.inference_mode():
        for items in plan(source.lengths(model.form), JUDGED_POSITIONS):
            work = masked_codes(gather(source, items, model.form), rng, share, model.config.vocab_size)
            total += float(work.sums(model)[0])
            hidden += int(work.counts[0])
    model.train(was_training)
    return total / hidden
