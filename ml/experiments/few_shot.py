"""AUROC by the number of labelled patients, for variants of one model and baselines on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.cohorts import load_tasks
from ml.common.errors import VigilError
from ml.common.files import sha256_json
from ml.demo.generate import Order as Hospitals
from ml.evaluation.baselines import PENALTIES, TaskRows, fit_boosting, fit_logistic, make_design
from ml.evaluation.boosting import LEAST_IN_LEAF
from ml.evaluation.features import Features, make_features
from ml.evaluation.results import LIGHTGBM, LOGISTIC_REGRESSION, ORACLE
from ml.experiments.cells import Cells, Outcome, Worker
from ml.experiments.draws import Draw, Order, thinned
from ml.experiments.hospital import Hospital
from ml.experiments.learning import Changes, Learner, part, preset_of
from ml.models import Preset
from ml.training.data import Labelled, labelled_data
from ml.training.inference import logits_of, zero_shot_of
from ml.training.judge import auroc

ALL = "all"
BASELINES = (LOGISTIC_REGRESSION, LIGHTGBM)
FIXED_PENALTY = (0.01,)  # where there are too few rows to choose one
MORE_PENALTIES = (*PENALTIES, 0.3, 1.0)


@dataclass(frozen=True)
class Variant:
    """One way to make a model: changes of the base preset, and where it starts.

    Attributes:
        name: as tables show it.
        changes: of the base preset.
        start: ``pretrained``, ``random``, or ``zero-shot``: pretrained and never fine-tuned.
    """

    name: str
    changes: Changes
    start: Literal["pretrained", "random", "zero-shot"] = "pretrained"


@dataclass(frozen=True)
class Plan:
    """Everything that the results depend on; equal plans have equal digests.

    Attributes:
        experiment: its name.
        hospital: which demo hospital.
        tasks: outcomes, each with draws and models of its own.
        preset: name of the base preset, and ``changes`` to it.
        variants: what is compared.
        sizes: labelled patients of the draws; ``all`` comes on top.
        repeats: of each draw, and ``repeats_of_all``.
        share: of cases in a draw (Med-BERT's cohort of pancreatic cancer has 11,486 among 29,405).
        controls: judged held-out rows without the outcome, for each with it.
        seed: of draws, pretraining and fine-tuning.
    """

    experiment: str
    hospital: Hospitals
    tasks: tuple[str, ...]
    preset: str
    changes: Changes
    variants: tuple[Variant, ...]
    sizes: tuple[int, ...]
    repeats: int
    repeats_of_all: int
    share: float = 11_486 / 29_405
    controls: int = 10
    seed: int = 20_240_101
    version: int = 1

    def resolved(self, variant: Variant) -> Preset:
        """The preset of a variant."""
        return preset_of(self.preset, self.changes, variant.changes)

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, with every preset spelt out."""
        presets = {variant.name: self.resolved(variant).model_dump() for variant in self.variants}
        return sha256_json({**asdict(self), "presets": presets, "identity": self.hospital.identity})

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Variants that see no label."""
        return tuple(v.name for v in self.variants if v.start == "zero-shot")

    def cells(self) -> Iterator[Cell]:
        """Every cell, repeat by repeat, so that what is done at any time has all sizes and models."""
        names = [v.name for v in self.variants if v.start != "zero-shot"] + list(BASELINES)
        for task in self.tasks:
            yield from (Cell(task, name, 0, 0) for name in (ORACLE, *self.unlabelled))
            for repeat in range(max(self.repeats, self.repeats_of_all)):
                for size in (*self.sizes, None):
                    if repeat < (self.repeats_of_all if size is None else self.repeats):
                        yield from (Cell(task, name, size, repeat) for name in names)


@dataclass(frozen=True)
class Cell:
    """One model on one draw. ``size`` None: all labelled patients; 0: none."""

    task: str
    model: str
    size: int | None
    repeat: int

    @property
    def name(self) -> str:
        model = "-".join(self.model.replace(",", "").split())
        return f"{self.task}-{model}-n{ALL if self.size is None else self.size}-r{self.repeat}"

    @property
    def kind(self) -> str:
        """Cells of one kind take about the same time."""
        return f"{self.model}-{self.size}"


@dataclass(frozen=True)
class Ground:
    """The labelled patients of one task, and the rows that are judged: held-out patients at every index day, all rows
    with the outcome and some of the others."""

    pool: Labelled
    judged: Labelled
    features: Features
    pool_rows: NDArray[np.int64]
    judged_rows: NDArray[np.int64]


class Bench:
    """Does the cells of a plan on its hospital."""

    def __init__(self, plan: Plan, place: Hospital, folder: Path) -> None:
        self.plan, self.place = plan, place
        self.learner = Learner(place.run, place.vocabulary, folder / "pretrained", plan.seed)
        self.variants = {variant.name: variant for variant in plan.variants}
        self.presets = {variant.name: plan.resolved(variant) for variant in plan.variants}
        self.outcomes = {task.name: (task,) for task in load_tasks(plan.tasks)}
        self.by_name = {cell.name: cell for cell in plan.cells()}
        self.grounds: dict[str, Ground] = {}

    def run(self, folder: Path, say: Callable[[str], None], train: bool = True) -> dict[str, Outcome]:
        """Every cell's outcome, by name; those without a draw have a reason. Not to train gives what is finished."""
        worker = Worker(Cells(folder / "cells"), self.plan.experiment, say)
        todo = [(cell.kind, cell.name) for cell in self.by_name.values()]
        return worker.run(todo, self._work) if train else worker.done(todo)

    def ground(self, task: str) -> Ground:
        """The rows of a task, made once."""
        if task not in self.grounds:
            self.grounds = {task: ground_of(self.place, self.learner, task, self.plan)}  # one at a time: memory
        return self.grounds[task]

    def _work(self, name: str) -> Outcome:
        cell = self.by_name[name]
        ground = self.ground(cell.task)
        if cell.model == ORACLE:
            risks = self.place.oracle(ground.judged, (cell.task,))[:, 0]
            known = not np.isnan(risks).any()
            return _judged(ground, risks, 0, 0) if known else Outcome({"reason": "the oracle does not know this task"})
        if cell.size == 0:
            return _judged(ground, self._zero_shot(cell, ground), 0, 0)
        draw = Order.of(ground.pool, self.plan.seed, cell.repeat).draw(cell.size, self.plan.share)
        if draw is None:
            return Outcome({"reason": "too few labelled patients with the outcome"})
        scores = self._baseline(cell, ground, draw) if cell.model in BASELINES else self._model(cell, ground, draw)
        return _judged(ground, scores, draw.size, int(ground.pool.labels[draw.rows, 0].sum()))

    def _zero_shot(self, cell: Cell, ground: Ground) -> NDArray[np.float32]:
        preset = self.presets[cell.model]
        model = self.learner.start(preset, self.outcomes[cell.task], self.plan.seed)
        return zero_shot_of(model, ground.judged.source, "mask" if preset.model.head == "mask" else "sum")[:, 0]

    def _model(self, cell: Cell, ground: Ground, draw: Draw) -> NDArray[np.float32]:
        preset, seed = self.presets[cell.model], self.plan.seed + 1 + cell.repeat
        pretrained = self.variants[cell.model].start == "pretrained"
        if cell.size is not None:  # cases are not rare among them: every row is seen in every epoch
            budget = preset.finetuning.model_copy(update={"negatives": 1.0})
            preset = preset.model_copy(update={"finetuning": budget})
        model = self.learner.start(preset, self.outcomes[cell.task], seed, pretrained)
        tuning = part(ground.pool, draw.tuning) if len(draw.tuning) else None
        self.learner.finetune(model, preset, seed, part(ground.pool, draw.training), tuning)
        return logits_of(model, ground.judged.source)[:, 0]

    def _baseline(self, cell: Cell, ground: Ground, draw: Draw) -> NDArray[np.float64]:
        least = max(1, draw.size // 50)
        label = ground.pool.labels[:, 0] > 0.5
        rows = TaskRows(
            ground.pool_rows[draw.training],
            label[draw.training],
            ground.pool_rows[draw.tuning],
            label[draw.tuning],
            pl.DataFrame(),
            ground.judged_rows,
        )
        design = make_design(ground.features, rows.train, min(least, 10))
        if cell.model == LIGHTGBM:
            return fit_boosting(design.counts, rows, min(least, LEAST_IN_LEAF))
        return fit_logistic(design.linear, rows, MORE_PENALTIES if len(draw.tuning) else FIXED_PENALTY)


def _judged(ground: Ground, scores: NDArray[np.floating], size: int, cases: int) -> Outcome:
    value = auroc(ground.judged.labels[:, 0], scores)
    return Outcome({"auroc": value, "labelled": size, "cases": cases}, scores.astype(np.float32)[:, None])


def ground_of(place: Hospital, learner: Learner, task: str, plan: Plan) -> Ground:
    """The rows of a task.

    Raises:
        VigilError: no held-out patient has the outcome.
    """
    run = place.run
    pool = labelled_data(run, learner.vocabulary, (task,), ("train", "tuning"), run.training_days)
    judged = labelled_data(run, learner.vocabulary, (task,), ("held_out",), run.index_days)
    judged = part(judged, thinned(judged.labels, plan.controls, np.random.default_rng([plan.seed, 7])))
    if not np.nansum(judged.labels):
        raise VigilError(f"no held-out patient has the outcome {task}", "choose a larger scale")
    frames = [place.keys(data) for data in (pool, judged)]
    features = make_features(run, frames)
    return Ground(pool, judged, features, features.find(frames[0]), features.find(frames[1]))
