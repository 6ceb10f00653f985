"""Fine-tuning: all outcomes at once, each subject and day for the tasks it is eligible for."""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ml.cohorts import Task, TrainingRun, load_tasks
from ml.common.errors import VigilError
from ml.common.files import read_json, sha256_file
from ml.common.progress import Progress
from ml.models.config import MedBertConfig
from ml.models.files import RECORD, finished, save_model
from ml.models.heads import Heads
from ml.models.medbert import Inputs, MedBert, load_model, new_model
from ml.models.presets import StagePreset
from ml.sequences.batches import Batch
from ml.sequences.packing import Int64
from ml.settings import get_settings
from ml.training.budget import Budget, Draw, batches
from ml.training.data import Labelled, labelled_data
from ml.training.inference import logits_of
from ml.training.judge import macro_auroc, platt
from ml.training.linear_start import start_linear
from ml.training.optimisation import optimiser, step
from ml.training.parallel import Replicas, grouped
from ml.training.precision import autocast, device
from ml.training.predict import write_predictions
from ml.training.records import Record
from ml.training.setup import Setup, setup, weights_digest

log = logging.getLogger(__name__)


@dataclass
class Best:
    """The best weights so far, by macro AUROC on the tuning split."""

    score: float = -math.inf
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[dict[str, object]] = field(default_factory=list)

    def look(self, model: MedBert, tuning: Labelled, seen: int) -> float:
        """Judge the weights on the tuning split."""
        score, each = macro_auroc(tuning.labels, logits_of(model, tuning.source))
        self.history.append({"tokens": seen, "macro_auroc": _number(score), "auroc": [_number(v) for v in each]})
        log.info("finetune: tuning AUROC %.4f after %d tokens", score, seen)
        return score

    def offer(self, model: MedBert, tuning: Labelled, seen: int) -> None:
        """Keep the weights if they are the best so far; where the tuning split has no events, the latest."""
        score = self.look(model, tuning, seen)
        if math.isnan(score) or score > self.score:
            self.score = -math.inf if math.isnan(score) else score
            self.weights = copy.deepcopy(model.state_dict())


def finetune(run: TrainingRun) -> Path:
    """Write ``run.finetuned`` and ``run.predictions("medbert")``; finished ones with the same inputs are kept.

    Args:
        run: must be pretrained and have labels. If its pretraining started from a model, that model's heads are
            taken over where the outcomes are the same, and the budget is smaller.

    Raises:
        VigilError: an input is absent, or the loss is not finite.
    """
    tasks = load_tasks(get_settings().tasks)
    manifest = run.labels(tasks[0].name).parent / "manifest.json"
    if not manifest.exists() or not (run.pretrained / "training.json").exists():
        raise VigilError(f"run {run.name} has no labels or no pretrained model", "make the labels and pretrain first")
    names = tuple(task.name for task in tasks)
    initial = read_json(run.pretrained / RECORD)["initial"]
    more = {"tasks": list(names), "pretrained": weights_digest(run.pretrained), "labels": sha256_file(manifest)}
    ready = setup(run, "finetune", initial=initial, **more)
    if finished(run.finetuned, ready.digest):
        log.info("finetune: already done for these inputs")
    else:
        model = with_heads(load_model(run.pretrained), tasks).to(device())
        record = train(model, run, ready, ready.preset.warm_start if initial else 1.0)
        save_model(run.finetuned, model, ready.vocabulary, {**record, "inputs": ready.digest, **ready.inputs})
    write_predictions(run)
    return run.finetuned


def with_heads(pretrained: MedBert, tasks: tuple[Task, ...]) -> MedBert:
    """The pretrained model with one head per task: its own heads where they are of these tasks, else new ones."""
    outcomes, horizons = [task.name for task in tasks], [task.horizon_days for task in tasks]
    if pretrained.config.outcomes == outcomes:
        pretrained.config.horizons = horizons
        return pretrained
    values = {**pretrained.config.to_dict(), "outcomes": outcomes, "horizons": horizons, "calibration": []}
    model = new_model(MedBertConfig.from_dict(values), pretrained.embeddings.parents)
    own = {name: tensor for name, tensor in pretrained.state_dict().items() if not name.startswith("heads.")}
    model.load_state_dict(own, strict=False)
    return model


def train(model: MedBert, run: TrainingRun, ready: Setup, share: float) -> dict[str, object]:
    """Spend the budget, keep the best weights, calibrate; the record's JSON."""
    stage, longest, seed = ready.preset.finetuning, ready.preset.longest, ready.inputs["seed"]
    names = tuple(model.config.outcomes)
    training = labelled_data(run, ready.vocabulary, names, ("train",), run.training_days)
    tuning = labelled_data(run, ready.vocabulary, names, ("tuning",), run.training_days)
    if not np.nansum(training.labels):
        return leave_at_priors(model, training, stage)
    if not model.config.calibration:  # heads that were never trained
        set_priors(model, training.labels)
        if model.config.linear_path:
            start_linear(model, training)
    draw, weights = drawn_negatives(training.labels, stage.negatives)
    epoch = float((training.source.lengths(longest) / weights).sum())
    budget = Budget.of(stage, int(epoch), share)
    progress, record, best = Progress("finetune", budget.tokens), Record("finetune", budget), Best()
    optimizer, next_look = optimiser(model, stage, stage.head_rate), budget.tokens / stage.evaluations
    replicas = Replicas(model, stage.micro_batches, get_settings().threads, seed)
    best.look(model, tuning, 0)
    stream = batches(training.source, longest, stage.batch_positions, budget, seed, draw)
    for group in grouped(stream, stage.micro_batches):
        losses = [
            partial(outcome_loss, batch=batch, labels=training.labels[batch.items], weights=weights[batch.items])
            for batch, _ in group
        ]
        seen = group[-1][1]
        record.add(step(model, optimizer, replicas.gradients(losses), stage, seen / budget.tokens), seen)
        progress.report(min(seen, budget.tokens), f"loss {record.recent:.4f}, {record.speed:,.0f} tokens/s")
        if seen >= min(next_look, budget.tokens):
            best.offer(model, tuning, seen)
            next_look = seen + budget.tokens / stage.evaluations
    replicas.close()
    model.load_state_dict(best.weights)
    calibrate(model, tuning)
    return {
        **record.finish(),
        "tuning": best.history,
        "calibration": dict(zip(names, model.config.calibration, strict=True)),
    }


def leave_at_priors(model: MedBert, training: Labelled, stage: StagePreset) -> dict[str, object]:
    """Where no training label is positive there is nothing to learn an outcome from: each head says its prior.

    The model still goes to the evaluation and the gate, which refuse it for want of evidence.
    """
    log.warning("finetune: no training label is positive: every outcome keeps its prior")
    set_priors(model, training.labels)
    model.config.calibration = [[1.0, 0.0] for _ in model.config.outcomes]
    return Record("finetune", Budget.of(stage, 0)).finish()


def drawn_negatives(labels: npt.NDArray[np.float32], share: float) -> tuple[Draw, npt.NDArray[np.float32]]:
    """Draw all rows with any outcome and a share of the others each epoch, weighted so that the loss stays unbiased.

    Outcomes are rare: most rows without one say the same, and an epoch of a quarter of them costs a quarter.

    Returns:
        What draws an epoch's rows, and ``[n]`` their weights.
    """
    positive = np.nansum(labels, axis=1) > 0
    always, others = np.flatnonzero(positive), np.flatnonzero(~positive)
    count = min(max(int(np.ceil(share * others.size)), 1), others.size)

    def draw(rng: np.random.Generator) -> Int64:
        return np.concatenate((always, rng.choice(others, count, replace=False)))

    return draw, np.where(positive, 1.0, others.size / max(count, 1)).astype(np.float32)


def outcome_loss(
    model: MedBert, batch: Batch, labels: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> torch.Tensor:
    """Binary cross-entropy, weighted mean over the known labels of each outcome, summed over outcomes."""
    target = torch.from_numpy(labels).to(model.device)  # [B, outcomes]
    weight = ~torch.isnan(target) * torch.from_numpy(weights).to(model.device)[:, None]
    with autocast(model.device):
        logits = model(Inputs.of(batch, model.device))
    each = functional.binary_cross_entropy_with_logits(logits.float(), target.nan_to_num(), reduction="none")
    return ((each * weight).sum(0) / weight.sum(0).clamp(min=1)).sum()


def set_priors(model: MedBert, labels: npt.NDArray[np.float32]) -> None:
    """Start each head at the outcome's frequency, so that the first steps are not spent on it.

    The heads that decode codes have no bias to set.
    """
    if not isinstance(model.heads, Heads):
        return
    known = ~np.isnan(labels)
    share = (np.nansum(labels, axis=0) + 1.0) / (known.sum(axis=0) + 2.0)
    with torch.no_grad():
        model.heads.out.bias.copy_(torch.from_numpy(np.log(share / (1 - share)).astype(np.float32)))


def calibrate(model: MedBert, tuning: Labelled) -> None:
    """Fit slope and intercept per outcome on the tuning split and keep them in the configuration."""
    logits = logits_of(model, tuning.source)
    pairs = []
    for column in range(logits.shape[1]):
        known = ~np.isnan(tuning.labels[:, column])
        pairs.append(list(platt(tuning.labels[known, column], logits[known, column])))
    model.config.calibration = pairs


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 5)
