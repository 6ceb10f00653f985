"""An experiment's own hospital: generated, labelled and tokenised once, in a deployment of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.cohorts import CORE_BEHRT, TrainingRun, load_tasks, make_labels, open_run, prediction_time, tasks_of
from ml.common.files import sha256_json
from ml.demo.events import commit_hospital
from ml.demo.generate import Order, process_of
from ml.demo.oracle import predictions
from ml.demo.outcomes import outcome_of
from ml.demo.process import END
from ml.sequences import Vocabulary, load_vocabulary, prepare
from ml.settings import get_settings, other_settings
from ml.training.data import Labelled

Floats = NDArray[np.float64]
MORE_TASKS = ("heart_failure", "pancreatic_cancer_45_plus", "type_2_diabetes")
SHARDS, SHARD = 2, 12_500  # at least so many shards, and patients of one at most


@dataclass(frozen=True)
class Hospital:
    """What the experiments work on.

    Attributes:
        order: which hospital.
        run: its log on the last day of the calendar, five index days, labels of `tasks_labelled`, token stores.
        truth: folder of what is true about it.
    """

    order: Order
    run: TrainingRun
    truth: Path

    def keys(self, data: Labelled) -> pl.DataFrame:
        """``subject_id`` and ``prediction_time`` of rows."""
        times = np.array([prediction_time(day) for day in self.run.index_days], "datetime64[us]")
        return pl.DataFrame({"subject_id": data.subjects, "prediction_time": times[data.index - 1]})

    def oracle(self, data: Labelled, tasks: tuple[str, ...], splits: tuple[str, ...] = ("held_out",)) -> Floats:
        """``[rows, tasks]`` the oracle's risks of rows of these splits; NaN where it does not know the task."""
        process = process_of(self.order.preset)
        known = {task.name: outcome_of(process, task) for task in load_tasks(tasks)}
        answers = predictions(self.run, process, {n: o for n, o in known.items() if o is not None}, splits)
        keys = self.keys(data)
        wide = answers.pivot("task", index=keys.columns, values="predicted_boolean_probability")
        wide = keys.join(wide, on=keys.columns, how="left", maintain_order="left")
        columns = [wide[t].to_numpy() if t in wide.columns else np.full(len(keys), np.nan) for t in tasks]
        return np.stack(columns, axis=1)

    @property
    def vocabulary(self) -> Vocabulary:
        return load_vocabulary(self.run.vocabulary)


def tasks_labelled() -> tuple[str, ...]:
    """Every task that an experiment may ask for, so that all of them share a hospital."""
    return tuple(sorted({*tasks_of(CORE_BEHRT), *MORE_TASKS}))


@contextmanager
def hospital(order: Order) -> Iterator[Hospital]:
    """The hospital in ``data/experiments/hospitals``, made where it is not there; settings point to it meanwhile."""
    settings, tasks = get_settings(), tasks_labelled()
    identity = {"order": order.identity, "tasks": tasks, "salt": settings.split_salt, "as_of": str(END)}
    home = settings.data_dir / "experiments" / "hospitals" / sha256_json(identity)[:12]
    own = {
        "data": home,
        "event_log": home / "event_log",
        "tasks": tasks,
        "shards": max(SHARDS, order.patients // SHARD),
    }
    with other_settings(**own, index_days=5, index_step=365, training_processes=1):
        truth = home / "truth"
        commit_hospital(order, END, truth)
        run = open_run(END)
        make_labels(run)
        prepare(run)
        yield Hospital(order, run, truth)
