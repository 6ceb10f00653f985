"""The presets side by side, each in its own shape, after equal compute.

A preset's tokens follow from its size: 6 FLOP per parameter outside embeddings, decoder and heads, and per token
(Kaplan 2020, arXiv 2001.08361, section 2.1), so that all presets spend the same. Learning rates, batches and the share
of negatives are the night's for all: the papers' are for a thousand times as many steps. What a preset is shown, hides
and pools, and its second objective, are its own. Pretraining sees train-split patients, fine-tuning the same at
t2 … tK, early stopping the tuning split; held-out patients are judged at every index day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.cohorts import CORE_BEHRT, load_tasks, read_evaluability, tasks_of
from ml.common.errors import VigilError
from ml.common.files import sha256_json
from ml.demo.generate import Order as Hospitals
from ml.experiments.cells import Cells, Outcome, Worker
from ml.experiments.draws import thinned
from ml.experiments.hospital import Hospital
from ml.experiments.learning import Changes, Learner, part
from ml.models import Preset, load_preset
from ml.models.config import config_of
from ml.models.medbert import MedBert, load_model, new_model
from ml.models.presets import changed
from ml.sequences.batches import gather, plan
from ml.training.data import labelled_data, pretraining_data
from ml.training.inference import logits_of
from ml.training.judge import macro_auroc
from ml.training.pretraining import masked_loss

PRESETS = ("med-bert", "behrt", "core-behrt", "vigil", "night")
FLOP_PER_PARAMETER = 6  # forwards and backwards, of a multiply and an add
EMBEDDED = ("embeddings.", "decoder.", "heads.")  # parameters that are looked up or work once a sequence
STOP_CONTROLS = 2  # rows without any outcome that early stopping looks at, for each with one
SHARED_PRETRAINING = ("batch_positions", "micro_batches", "learning_rate", "weight_decay", "warmup", "clip")
SHARED_FINETUNING = (*SHARED_PRETRAINING, "negatives", "head_rate", "evaluations", "patience")


@dataclass(frozen=True)
class SidePlan:
    """Everything that the results depend on.

    Attributes:
        hospital: which demo hospital.
        pretraining_tokens, finetuning_tokens: of the preset `night`; the others' follow from their size.
        size: changes of every preset, for tests.
        trainings: fine-tunings of each preset, with a seed each.
    """

    hospital: Hospitals
    pretraining_tokens: int
    finetuning_tokens: int
    size: Changes
    trainings: int = 3
    seed: int = 42
    experiment: str = "presets"
    version: int = 1

    @cached_property
    def resolved(self) -> dict[str, Preset]:
        """Every preset with its budgets, by name."""
        night = load_preset("night")
        sizes = {name: changed(load_preset(name), self.size) for name in PRESETS}
        most = inner_parameters(sizes["night"])
        made = {}
        for name, preset in sizes.items():
            share = most / inner_parameters(preset)
            pretraining = {key: getattr(night.pretraining, key) for key in SHARED_PRETRAINING}
            finetuning = {key: getattr(night.finetuning, key) for key in SHARED_FINETUNING}
            pretraining |= {"tokens": round(self.pretraining_tokens * share), "max_epochs": 1_000.0}
            finetuning |= {"tokens": round(self.finetuning_tokens * share), "max_epochs": 1_000.0}
            made[name] = changed(preset, {"pretraining": pretraining, "finetuning": finetuning})
        return made

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, with every preset spelt out."""
        presets = {name: preset.model_dump() for name, preset in self.resolved.items()}
        return sha256_json({**asdict(self), "presets": presets, "identity": self.hospital.identity})

    def cells(self) -> Iterator[SideCell]:
        """Every cell; each preset's first training before any second."""
        yield from (SideCell(name, number) for number in range(self.trainings) for name in PRESETS)


@dataclass(frozen=True)
class SideCell:
    """One preset and fine-tuning."""

    preset: str
    training: int

    @property
    def name(self) -> str:
        return f"{self.preset}-{self.training}"


class SideBench:
    """Does the cells on their hospital."""

    def __init__(self, plan: SidePlan, place: Hospital, folder: Path) -> None:
        self.plan, self.place = plan, place
        verdicts = read_evaluability(place.run)
        self.tasks = tuple(task for task in tasks_of(CORE_BEHRT) if verdicts[task].evaluable)
        if not self.tasks:
            raise VigilError("no outcome is evaluable in this hospital", "choose a larger scale")
        run, vocabulary = place.run, place.vocabulary
        self.learner = Learner(run, vocabulary, folder / "pretrained", plan.seed)
        self.training = labelled_data(run, vocabulary, self.tasks, ("train",), run.training_days)
        tuning = labelled_data(run, vocabulary, self.tasks, ("tuning",), run.training_days)
        rows = thinned(tuning.labels, STOP_CONTROLS, np.random.default_rng(plan.seed))
        self.tuning = part(tuning, rows)
        self.judged = labelled_data(run, vocabulary, self.tasks, ("held_out",), run.index_days)
        self.by_name = {cell.name: cell for cell in plan.cells()}

    def run(self, folder: Path, say: Callable[[str], None], train: bool = True) -> dict[str, Outcome]:
        """Every cell's outcome, by name; not to train gives what is finished."""
        worker = Worker(Cells(folder / "cells"), self.plan.experiment, say)
        todo = [(cell.preset, cell.name) for cell in self.by_name.values()]
        return worker.run(todo, self._work) if train else worker.done(todo)

    def _work(self, name: str) -> Outcome:
        cell = self.by_name[name]
        preset, seed = self.plan.resolved[cell.preset], self.plan.seed + 1 + cell.training
        values: dict[str, float] = self._pretrained(preset) if cell.training == 0 else {}
        model = self.learner.start(preset, load_tasks(self.tasks), seed)
        values["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        self.learner.finetune(model, preset, seed, self.training, self.tuning)
        scores = logits_of(model, self.judged.source)
        by_task = dict(zip(self.tasks, macro_auroc(self.judged.labels, scores)[1], strict=True))
        return Outcome({**values, "held_out": by_task}, scores)

    def _pretrained(self, preset: Preset) -> dict[str, float]:
        """Held-out loss of the pretrained model, and of the codes' frequencies."""
        model = load_model(self.learner.pretrained(preset))
        held_out = pretraining_data(self.place.run, self.place.vocabulary, "held_out")
        return {"loss": masked_loss(model, held_out), "frequencies": self._frequencies(model)}

    def _frequencies(self, model: MedBert) -> float:
        """Mean cross-entropy (nats) of held-out codes, told by how often a code is among the train split's."""
        size, form = model.config.vocab_size, model.form
        seen = []
        for split in ("train", "held_out"):
            source = pretraining_data(self.place.run, self.place.vocabulary, split)
            counts = np.zeros(size)
            for items in plan(source.lengths(form), 1 << 16):
                batch = gather(source, items, form)
                counts += np.bincount(batch.tokens[(batch.visits > 0)], minlength=size)
            seen.append(counts)
        train, held_out = seen
        p = (train + 1.0) / (train + 1.0).sum()
        return float(-(held_out * np.log(p)).sum() / held_out.sum())


def inner_parameters(preset: Preset) -> int:
    """Parameters that work on every token: outside embeddings, decoder and heads."""
    import torch

    config = config_of(preset.model, 8, "", preset.longest, preset.form, preset.pretraining.long_stay > 0)
    model = new_model(config, torch.zeros(8, dtype=torch.int64))
    named = model.named_parameters()
    return sum(parameter.numel() for name, parameter in named if not name.startswith(EMBEDDED))


def scores_of(outcomes: dict[str, Outcome], plan: SidePlan, preset: str) -> list[NDArray[np.float32]]:
    """The finished trainings' scores of held-out rows."""
    found = [outcomes.get(SideCell(preset, number).name) for number in range(plan.trainings)]
    return [outcome.risks for outcome in found if outcome is not None and outcome.risks is not None]
