"""The increments from BEHRT to CORE-BEHRT (Odgaard 2024, arXiv 2404.15201), each over all evaluable outcomes.

Every rung is pretrained once, with the same number of tokens, and fine-tuned for all outcomes at once, once per fold of
the patients who are not held out: one fold is judged, the next chooses the best weights, three are learned from. Each
fold's model also answers for the held-out patients, whom no pretraining has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ml.cohorts import CORE_BEHRT, load_tasks, read_evaluability, tasks_of
from ml.cohorts.tasks import Task
from ml.common.errors import VigilError
from ml.common.files import sha256_json
from ml.demo.generate import Order as Hospitals
from ml.evaluation.results import LIGHTGBM, LOGISTIC_REGRESSION, ORACLE
from ml.experiments.cells import Cells, Outcome, Worker
from ml.experiments.counted import Counted
from ml.experiments.draws import thinned
from ml.experiments.hospital import Hospital
from ml.experiments.learning import Changes, Learner, part, preset_of
from ml.models import Preset
from ml.models.presets import changed
from ml.training.data import labelled_data
from ml.training.inference import logits_of
from ml.training.judge import macro_auroc

BASELINES = (LOGISTIC_REGRESSION, LIGHTGBM)
STOP_CONTROLS = 2  # rows without any outcome that early stopping looks at, for each with one


@dataclass(frozen=True)
class Step:
    """One increment.

    Attributes:
        name: as tables show it.
        changes: of the preset so far.
        kept: whether the next step builds on it; the paper tried some and turned back.
    """

    name: str
    changes: Changes
    kept: bool = True


STEPS = (
    Step("BEHRT (diagnoses)", {}),
    Step("+ medication", {"form": {"contents": ["diagnosis", "drug"]}}),
    Step("+ full codes, sex", {"form": {"codes": "full", "sex": True}}),
    Step("− SEP", {"form": {"separators": False}}, kept=False),
    Step("+ visit number", {"model": {"visit": "number"}}),
    Step("+ Time2Vec of time", {"model": {"time": "absolute", "scales": "core_behrt"}}),
    Step("+ Time2Vec of age", {"model": {"age": "time2vec"}}),
    Step("+ RoPE, SwiGLU", {"model": {"position": "rope", "feedforward_kind": "swiglu_core_behrt"}}),
    Step("+ masking 20 %", {"pretraining": {"masked": 0.20}}),
    Step("+ long stays", {"pretraining": {"long_stay": 1.0}}, kept=False),
    Step("+ BiGRU (CORE-BEHRT)", {"model": {"pooling": "bigru"}}),
)
BASE, DATA, FINAL = STEPS[0].name, "+ Time2Vec of time", STEPS[-1].name
REFERENCES = {"Med-BERT": "med-bert", "Vigil's night": "night"}


@dataclass(frozen=True)
class LadderPlan:
    """Everything that the results depend on.

    Attributes:
        hospital: which demo hospital.
        size: changes of every preset: shape, budgets, batches. The same tokens for each.
        night: more changes for Vigil's nightly preset, whose learning rates are its own.
        folds: over the patients who are not held out.
    """

    hospital: Hospitals
    size: Changes
    night: Changes
    folds: int = 5
    seed: int = 42
    experiment: str = "core-behrt-ladder"
    version: int = 1

    def presets(self) -> dict[str, Preset]:
        """Every model's preset, by name: references, then rungs."""
        made = {}
        for name, preset in REFERENCES.items():
            made[name] = preset_of(preset, self.size, *([self.night] if preset == "night" else []))
        current = preset_of("behrt", self.size)
        for step in STEPS:
            made[step.name] = changed(current, step.changes)
            current = made[step.name] if step.kept else current
        return made

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, with every preset spelt out."""
        presets = {name: preset.model_dump() for name, preset in self.presets().items()}
        return sha256_json({**asdict(self), "presets": presets, "identity": self.hospital.identity})

    def cells(self) -> Iterator[RungCell]:
        """Every cell: the oracle, the baselines, then model by model; the ends of the ladder first."""
        yield RungCell(ORACLE, 0)
        names = list(self.presets())
        first = [BASE, FINAL]
        for name in (*BASELINES, *first, *(name for name in names if name not in first)):
            yield from (RungCell(name, fold) for fold in range(self.folds))


@dataclass(frozen=True)
class RungCell:
    """One model and fold."""

    model: str
    fold: int

    @property
    def name(self) -> str:
        words = "".join(c if c.isalnum() else " " for c in self.model.lower()).split()
        return f"{'-'.join(words)}-f{self.fold}"


class LadderBench:
    """Does the cells of the ladder on its hospital."""

    def __init__(self, plan: LadderPlan, place: Hospital, folder: Path) -> None:
        self.plan, self.place = plan, place
        verdicts = read_evaluability(place.run)
        self.tasks = tuple(task for task in tasks_of(CORE_BEHRT) if verdicts[task].evaluable)
        if not self.tasks:
            raise VigilError("no outcome of the ladder is evaluable in this hospital", "choose a larger scale")
        self.outcomes: tuple[Task, ...] = load_tasks(self.tasks)
        self.presets = plan.presets()
        self.learner = Learner(place.run, place.vocabulary, folder / "pretrained", plan.seed)
        run = place.run
        self.pool = labelled_data(run, place.vocabulary, self.tasks, ("train", "tuning"), run.training_days)
        self.judged = labelled_data(run, place.vocabulary, self.tasks, ("held_out",), run.index_days)
        self.fold = folds_of(self.pool.subjects, plan.folds, plan.seed)
        self.by_name = {cell.name: cell for cell in plan.cells()}
        self._counted: Counted | None = None

    def run(self, folder: Path, say: Callable[[str], None], train: bool = True) -> dict[str, Outcome]:
        """Every cell's outcome, by name. Not to train gives what is finished."""
        worker = Worker(Cells(folder / "cells"), self.plan.experiment, say)
        todo = [(cell.model, cell.name) for cell in self.by_name.values()]
        return worker.run(todo, self._work) if train else worker.done(todo)

    def parts(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows of the pool to learn from, to stop on, and to judge."""
        stop = (fold + 1) % self.plan.folds
        rows = [np.flatnonzero(mask) for mask in (~np.isin(self.fold, (fold, stop)), self.fold == stop)]
        return rows[0], rows[1], np.flatnonzero(self.fold == fold)

    def _work(self, name: str) -> Outcome:
        cell = self.by_name[name]
        if cell.model == ORACLE:
            return self._oracle()
        train, stop, judge = self.parts(cell.fold)
        answer = self._baseline if cell.model in BASELINES else self._model
        fold, held_out = answer(cell, train, stop, judge)
        return Outcome(
            {
                "fold": self._by_task(self.pool.labels[judge], fold),
                "held_out": self._by_task(self.judged.labels, held_out),
            },
            held_out.astype(np.float32),
        )

    def _by_task(self, labels: NDArray[np.float32], scores: NDArray[np.floating]) -> dict[str, float]:
        return dict(zip(self.tasks, macro_auroc(labels, scores)[1], strict=True))

    def _model(
        self, cell: RungCell, train: NDArray[np.int64], stop: NDArray[np.int64], judge: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        preset, seed = self.presets[cell.model], self.plan.seed + 1 + cell.fold
        model = self.learner.start(preset, self.outcomes, seed)
        rng = np.random.default_rng([self.plan.seed, cell.fold])
        looked_at = part(self.pool, stop[thinned(self.pool.labels[stop], STOP_CONTROLS, rng)])
        self.learner.finetune(model, preset, seed, part(self.pool, train), looked_at)
        return logits_of(model, part(self.pool, judge).source), logits_of(model, self.judged.source)

    def _baseline(
        self, cell: RungCell, train: NDArray[np.int64], stop: NDArray[np.int64], judge: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self._counted is None:
            self._counted = Counted.of(self.place, self.pool, self.judged)
        of_pool, of_judged = self._counted.rows
        learn, choose = ((of_pool[rows], self.pool.labels[rows]) for rows in (train, stop))
        scores = self._counted.logits(cell.model, learn, choose, np.concatenate((of_pool[judge], of_judged)))
        return scores[: len(judge)], scores[len(judge) :]

    def _oracle(self) -> Outcome:
        """The oracle's risks of the held-out rows; NaN where it does not know the outcome."""
        risks = self.place.oracle(self.judged, self.tasks)
        found = self._by_task(self.judged.labels, risks)
        silent = (np.isnan(risks) & ~np.isnan(self.judged.labels)).sum(axis=0)  # rows with a label and no answer
        known = {task: found[task] for task, rows in zip(self.tasks, silent.tolist(), strict=True) if not rows}
        return Outcome({"fold": {}, "held_out": known}, risks.astype(np.float32))


def folds_of(subjects: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """``[rows]`` the fold of each row's patient; folds are of equal size, and a patient lies in one."""
    unique, place = np.unique(subjects, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    return np.asarray((order % folds)[place])
