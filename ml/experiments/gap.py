"""How far the best model is from what the record can tell: the oracle, on a hospital large enough to judge by.

Models learn from train-split patients at t2 … tK, choose when to stop on the tuning split, and are judged with the
oracle on held-out patients at every index day. An outcome counts where at least `LEAST_EVENTS` held-out rows have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.cohorts import load_tasks, read_evaluability
from ml.cohorts.evaluability import Evaluability
from ml.common.errors import VigilError
from ml.common.files import sha256_json
from ml.demo.generate import Order as Hospitals
from ml.demo.generate import process_of
from ml.demo.outcomes import outcome_of
from ml.evaluation.results import LIGHTGBM, LOGISTIC_REGRESSION, ORACLE
from ml.experiments.cells import Cells, Outcome, Worker
from ml.experiments.counted import Counted
from ml.experiments.draws import thinned
from ml.experiments.hospital import Hospital, tasks_labelled
from ml.experiments.learning import Changes, Learner, part, preset_of
from ml.models import Preset
from ml.training.data import labelled_data
from ml.training.inference import logits_of
from ml.training.judge import macro_auroc

BASELINES = (LOGISTIC_REGRESSION, LIGHTGBM)
STOP_CONTROLS = 2  # rows without any outcome that early stopping looks at, for each with one


@dataclass(frozen=True)
class GapPlan:
    """Everything that the results depend on.

    Attributes:
        hospital: which demo hospital.
        variants: name, preset and changes of each model.
        least_events: held-out rows with an outcome, for it to count.
        trainings: fine-tunings of each model, with a seed each.
    """

    hospital: Hospitals
    variants: tuple[tuple[str, str, Changes], ...]
    least_events: int = 100
    trainings: int = 2
    seed: int = 42
    experiment: str = "oracle-gap"
    version: int = 1

    @cached_property
    def presets(self) -> dict[str, Preset]:
        """Every variant's preset."""
        return {name: preset_of(preset, changes) for name, preset, changes in self.variants}

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, with every preset spelt out."""
        presets = {name: preset.model_dump() for name, preset in self.presets.items()}
        return sha256_json({**asdict(self), "presets": presets, "identity": self.hospital.identity})

    def cells(self) -> Iterator[GapCell]:
        """Every cell; each model's first training before any second."""
        yield from (GapCell(name, 0) for name in (ORACLE, *BASELINES))
        yield from (GapCell(name, number) for number in range(self.trainings) for name in self.presets)


@dataclass(frozen=True)
class GapCell:
    """One model and training."""

    model: str
    training: int

    @property
    def name(self) -> str:
        return f"{'-'.join(self.model.replace(',', '').split())}-{self.training}"


class GapBench:
    """Does the cells on their hospital."""

    def __init__(self, plan: GapPlan, place: Hospital, folder: Path) -> None:
        self.plan, self.place = plan, place
        run, vocabulary, verdicts = place.run, place.vocabulary, read_evaluability(place.run)
        process, least = process_of(plan.hospital.preset), plan.least_events
        self.tasks = tuple(
            task.name
            for task in load_tasks(tasks_labelled())
            if outcome_of(process, task) is not None
            and verdicts[task.name].evaluable
            and _judged_events(verdicts[task.name]) >= least
        )
        if not self.tasks:
            raise VigilError("no outcome has enough events among held-out patients", "choose a larger scale")
        self.judged = labelled_data(run, vocabulary, self.tasks, ("held_out",), run.index_days)
        self.learner = Learner(run, vocabulary, folder / "pretrained", plan.seed)
        self.training = labelled_data(run, vocabulary, self.tasks, ("train",), run.training_days)
        self.tuning = labelled_data(run, vocabulary, self.tasks, ("tuning",), run.training_days)
        self.by_name = {cell.name: cell for cell in plan.cells()}

    @cached_property
    def counted(self) -> Counted:
        """Features of training, tuning and judged rows."""
        return Counted.of(self.place, self.training, self.tuning, self.judged)

    def run(self, folder: Path, say: Callable[[str], None], train: bool = True) -> dict[str, Outcome]:
        """Every cell's outcome, by name; not to train gives what is finished."""
        worker = Worker(Cells(folder / "cells"), self.plan.experiment, say)
        todo = [(cell.model, cell.name) for cell in self.by_name.values()]
        return worker.run(todo, self._work) if train else worker.done(todo)

    def _work(self, name: str) -> Outcome:
        cell = self.by_name[name]
        if cell.model == ORACLE:
            return self._outcome(self.place.oracle(self.judged, self.tasks))
        if cell.model in BASELINES:
            of_training, of_tuning, of_judged = self.counted.rows
            train, stop = (of_training, self.training.labels), (of_tuning, self.tuning.labels)
            return self._outcome(self.counted.logits(cell.model, train, stop, of_judged))
        preset, seed = self.plan.presets[cell.model], self.plan.seed + 1 + cell.training
        stop_rows = thinned(self.tuning.labels, STOP_CONTROLS, np.random.default_rng(self.plan.seed))
        encoder = preset.model.layers > 0  # without one there is nothing to pretrain
        model = self.learner.start(preset, load_tasks(self.tasks), seed, pretrained=encoder)
        self.learner.finetune(model, preset, seed, self.training, part(self.tuning, stop_rows))
        return self._outcome(logits_of(model, self.judged.source))

    def _outcome(self, scores: NDArray[np.floating]) -> Outcome:
        by_task = dict(zip(self.tasks, macro_auroc(self.judged.labels, scores)[1], strict=True))
        return Outcome({"held_out": by_task}, scores.astype(np.float32))


def _judged_events(verdict: Evaluability) -> int:
    return next(count.events for count in verdict.counts if count.split == "held_out")


def scores_of(outcomes: dict[str, Outcome], plan: GapPlan, model: str) -> NDArray[np.float32] | None:
    """A model's scores of the judged rows, the mean over its finished trainings; None without one."""
    cells = [cell for cell in plan.cells() if cell.model == model and cell.name in outcomes]
    risks = [outcomes[cell.name].risks for cell in cells]
    found = [risk for risk in risks if risk is not None]
    return np.asarray(np.mean(found, axis=0), np.float32) if found else None
