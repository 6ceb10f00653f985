"""Fine-tuning: all outcomes at once, each subject and day for the tasks it is eligible for."""

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

from ml.cohorts import Task, TrainingRun, load_tasks
from ml.common.errors import VigilError
from ml.common.files import read_json, sha256_file
from ml.models.config import MedBertConfig
from ml.models.files import RECORD, finished, save_model
from ml.models.heads import Heads
from ml.models.inputs import Inputs, send
from ml.models.medbert import MedBert, load_model, new_model
from ml.models.outcomes import outcome_codes
from ml.sequences.batches import Batch, gather
from ml.sequences.packing import Int64
from ml.sequences.vocabulary import Vocabulary
from ml.settings import get_settings
from ml.training.budget import Budget
from ml.training.course import Course
from ml.training.data import Labelled, labelled_data
from ml.training.engine import Engine
from ml.training.inference import logits_of
from ml.training.judge import platt
from ml.training.linear_start import start_linear
from ml.training.looks import Best
from ml.training.parallel import Work
from ml.training.precision import autocast
from ml.training.predict import write_predictions
from ml.training.records import Record
from ml.training.sampler import Draw, Source
from ml.training.setup import Setup, placed, setup, weights_digest
from ml.training.world import world

log = logging.getLogger(__name__)


def finetune(run: TrainingRun, halvings: int = 0) -> Path:
    """Write ``run.finetuned`` and ``run.predictions("medbert")``; finished ones with the same inputs are kept.

    Args:
        run: must be pretrained and have labels. If its pretraining started from a model, the budget is smaller, and
            heads without a linear path are that model's where the outcomes are the same (see `prepare_heads`).
        halvings: of the positions of a micro-batch, where the device's memory is known to be short.

    Raises:
        VigilError: an input is absent, or the loss is not finite.
        StoppedError: the process was asked to stop; the next call goes on.
    """
    tasks = load_tasks(get_settings().tasks)
    labels = checked_labels(run, tasks)
    if not (run.pretrained / RECORD).exists():
        raise VigilError(f"run {run.name} has no pretrained model", "pretrain first: vigil train pretrain")
    initial = read_json(run.pretrained / RECORD)["initial"]
    more = {"tasks": [task.name for task in tasks], "pretrained": weights_digest(run.pretrained), "labels": labels}
    ready = setup(run, "finetune", initial=initial, **more)
    if finished(run.finetuned, ready.digest):
        log.info("finetune: already done for these inputs")
    else:
        model = placed(with_heads(load_model(run.pretrained), tasks, ready.vocabulary))
        train(model, run, ready, ready.preset.warm_start if initial else 1.0, halvings, "finetune", run.finetuned)
    if world().first:
        write_predictions(run, run.finetuned, "medbert")
    return run.finetuned


def checked_labels(run: TrainingRun, tasks: tuple[Task, ...]) -> str:
    """Digest of the run's labels.

    Raises:
        VigilError: there are none.
    """
    manifest = run.labels(tasks[0].name).parent / "manifest.json"
    if not manifest.exists():
        raise VigilError(f"run {run.name} has no labels", "make the labels first: vigil cohorts labels")
    return sha256_file(manifest)


def with_heads(pretrained: MedBert, tasks: tuple[Task, ...], vocabulary: Vocabulary) -> MedBert:
    """The pretrained model with one head per task: its own heads where they are of these tasks, else new ones."""
    outcomes, horizons = [task.name for task in tasks], [task.horizon_days for task in tasks]
    codes = outcome_codes([task.outcome for task in tasks], vocabulary, pretrained.config.form())
    if pretrained.config.outcomes == outcomes:
        pretrained.config.horizons, pretrained.config.outcome_codes = horizons, codes
        return pretrained
    named = {"outcomes": outcomes, "horizons": horizons, "outcome_codes": codes, "calibration": []}
    config = MedBertConfig.from_dict({**pretrained.config.to_dict(), **named})
    model = new_model(config, pretrained.embeddings.parents, vocabulary)
    own = {name: tensor for name, tensor in pretrained.state_dict().items() if not name.startswith("heads.")}
    model.load_state_dict(own, strict=False)
    return model


def train(
    model: MedBert, run: TrainingRun, ready: Setup, share: float, halvings: int, stage: str, folder: Path
) -> None:
    """Spend the budget, keep the best weights, calibrate and save them in a folder."""
    training, tuning = data_of(model, run, ready)
    todo = replace(course(model, training, run, ready, share), name=stage, halvings=halvings)
    if not np.nansum(training.labels):
        record = leave_at_priors(model, training, stage)
    else:
        best, record = learn(model, training, tuning, ready, todo)
        if not world().first:
            return
        calibrate(model, tuning)
        calibration = dict(zip(model.config.outcomes, model.config.calibration, strict=True))
        record |= {"tuning": best.history, "calibration": calibration}
    if world().first:
        save_model(folder, model, ready.vocabulary, {**record, "inputs": ready.digest, **ready.inputs})
        todo.checkpoints.remove()


def data_of(model: MedBert, run: TrainingRun, ready: Setup) -> tuple[Labelled, Labelled]:
    """What is learned from, and what early stopping and calibration look at: other patients at the same days."""
    names = tuple(model.config.outcomes)
    training = labelled_data(run, ready.vocabulary, names, ("train",), run.training_days)
    return training, labelled_data(run, ready.vocabulary, names, ("tuning",), run.training_days)


def learn(
    model: MedBert, training: Labelled, tuning: Labelled, ready: Setup, todo: Course
) -> tuple[Best, dict[str, object]]:
    """Spend the budget and give the model its best weights, in the first process; what was seen, and the record."""
    prepare_heads(model, training)
    stage = ready.preset.finetuning
    best = Best(model, tuning, stage.evaluations, stage.patience)
    record = Engine(model, todo, best).run().finish()
    if world().first:
        best.take()
    return best, record


def prepare_heads(model: MedBert, training: Labelled) -> None:
    """Start a linear path at its optimum, each night, and other heads that were never trained at the outcomes'
    frequencies.

    Heads that go on from night to night learn the same labels by heart, which costs AUROC; a linear path takes a second
    to find again. Heads without one are kept: they have nothing else to start from.
    """
    if model.config.linear_path or not model.config.calibration:
        start_heads(model, training)


def start_heads(model: MedBert, training: Labelled) -> None:
    """The outcomes' frequencies, and the linear path's optimum where there is one."""
    set_priors(model, training.labels)
    if model.config.linear_path:
        start_linear(model, training)


def course(model: MedBert, training: Labelled, run: TrainingRun, ready: Setup, share: float) -> Course:
    """All outcomes at once, with a share of the preset's budget."""
    stage = ready.preset.finetuning
    draw, weights = drawn_negatives(training.labels, stage.negatives)
    lengths = training.source.lengths(model.form)
    source = Source(lengths, partial(gather, training.source, form=model.form), draw)
    budget = Budget.of(stage, int(float((lengths / weights).sum())), share)
    objective = partial(outcomes, labels=training.labels, weights=weights)
    seed, rate = ready.inputs["seed"], stage.head_rate
    return Course("finetune", stage, source, objective, budget, seed, ready.digest, run.path, rate)


def leave_at_priors(model: MedBert, training: Labelled, stage: str) -> dict[str, object]:
    """Where no training label is positive there is nothing to learn an outcome from: each head says its prior.

    The model still goes to the evaluation and the gate, which refuse it for want of evidence.
    """
    log.warning("%s: no training label is positive: every outcome keeps its prior", stage)
    start_heads(model, training)
    model.config.calibration = [[1.0, 0.0] for _ in model.config.outcomes]
    return Record(stage, 0).finish()


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


def outcomes(
    batch: Batch, rng: np.random.Generator, labels: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]
) -> Work:
    """A batch's known labels; each outcome is a part of the loss, divided by the weights of its known labels."""
    target = labels[batch.items]  # [B, outcomes]
    weight = (~np.isnan(target) * weights[batch.items][:, None]).astype(np.float32)
    sums = partial(outcome_loss, batch=batch, target=np.nan_to_num(target), weight=weight)
    return Work(weight.sum(axis=0, dtype=np.float64), sums, int(batch.lengths.sum()))


def outcome_loss(
    model: nn.Module, batch: Batch, target: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]
) -> torch.Tensor:
    """``[outcomes]``: binary cross-entropy of the known labels, weighted and summed."""
    assert isinstance(model, MedBert)
    where = model.device
    with autocast(where):
        logits = model(Inputs.of(batch, where))
    each = functional.binary_cross_entropy_with_logits(logits.float(), send(target, where), reduction="none")
    return (each * send(weight, where)).sum(0)


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
