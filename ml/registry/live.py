"""The curves of a training in MLflow while it trains: loss, gradient norm, learning rate, tokens per second, looks.

The worker writes points into the run's folder, this process reads them and sends what is new. A stage with the same
inputs is one MLflow run, also where it was killed and went on. MLflow's absence costs a warning, never the training.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ml.cohorts.runs import TrainingRun
from ml.common.errors import VigilError
from ml.common.files import read_json
from ml.registry import tracking
from ml.settings import get_settings
from ml.training.interruption import StoppedError
from ml.training.metrics import Point, metrics_path, read_curves
from ml.training.space import trials_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

EVERY = 5.0  # seconds between two looks at the file
LAST = 60.0  # seconds that the last look may take
AT_ONCE = 100  # points in a call: MLflow takes 1,000 values
TRAINING, STAGE, INPUTS, TRIAL = "vigil.training", "vigil.stage", "vigil.inputs_digest", "vigil.trial"  # tags


@contextmanager
def followed(run: TrainingRun, stage: str) -> Iterator[None]:
    """Send what a stage writes down to MLflow while the block runs, and say at its end whether it went well.

    Args:
        run: the training run.
        stage: ``pretrain``, ``finetune`` or ``recurrent``, whose points are sent; or ``search``, whose trials become
            nested runs.
    """
    follower = _Trials(run) if stage == "search" else _Curves(run, stage)
    thread = threading.Thread(target=follower.run, name=f"mlflow-{stage}", daemon=True)
    thread.start()
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except StoppedError:
        status = "KILLED"
        raise
    finally:
        follower.end(status)
        thread.join(LAST)


class _Follower:
    """Looks again and again, and once more at the end; an error is said once."""

    def __init__(self, run: TrainingRun, stage: str) -> None:
        self.name, self.stage = run.name, stage
        self.status, self.ended, self.warned = "FAILED", threading.Event(), False

    def end(self, status: str) -> None:
        self.status = status
        self.ended.set()

    def run(self) -> None:
        while not self.ended.wait(EVERY):
            self._try(None)
        self._try(self.status)

    def send(self, status: str | None) -> None:
        """Send what is new, and the status if it is the last time."""
        raise NotImplementedError

    def find(self, client: MlflowClient, inputs: str) -> str:
        """The MLflow run of this stage with these inputs, or a new one."""
        tags = {TRAINING: self.name, STAGE: self.stage, INPUTS: inputs}
        more = {tracking.PRESET: get_settings().preset}
        run_id, is_new = _find_or_create(client, tags, f"{self.name} {self.stage}", more)
        if not is_new:
            client.update_run(run_id, status="RUNNING")
        return run_id

    def _try(self, status: str | None) -> None:
        try:
            self.send(status)
        except Exception as error:  # whatever it is, the training is worth more
            if not self.warned:
                why = error if isinstance(error, VigilError) else type(error).__name__
                log.warning("the curves of %s do not get to MLflow: %s; the training goes on", self.stage, why)
            self.warned = True


class _Curves(_Follower):
    def __init__(self, run: TrainingRun, stage: str) -> None:
        super().__init__(run, stage)
        self.path = metrics_path(run.path, stage)
        self.sent: dict[str, tuple[str, int]] = {}  # MLflow run and last step, by digest of the inputs

    def send(self, status: str | None) -> None:
        curves = read_curves(self.path)
        if curves is None:
            return
        known = self.sent.get(curves.inputs)
        if known and status is None and not _after(curves.points, known[1]):
            return
        with tracking.connected() as client:
            run_id, last = known or self._last(client, self.find(client, curves.inputs))
            new = _after(curves.points, last)
            for at in range(0, len(new), AT_ONCE):
                _log(client, run_id, new[at : at + AT_ONCE])
            self.sent[curves.inputs] = run_id, new[-1].step if new else last
            if status is not None:
                client.set_terminated(run_id, status)

    def _last(self, client: MlflowClient, run_id: str) -> tuple[str, int]:
        """A run and the last step it has."""
        return run_id, max((metric.step for metric in client.get_metric_history(run_id, "loss")), default=-1)


class _Trials(_Follower):
    def __init__(self, run: TrainingRun) -> None:
        super().__init__(run, "search")
        self.path, self.sent = trials_path(run.path), 0

    def send(self, status: str | None) -> None:
        found = read_json(self.path) if self.path.exists() else {"trials": []}
        if not found["trials"] or (status is None and len(found["trials"]) == self.sent):
            return
        with tracking.connected() as client:
            parent = self.find(client, found["study"])
            for trial in found["trials"][self.sent :]:
                _log_trial(client, parent, trial)
                self.sent += 1
            if status is not None:
                client.log_metric(parent, "score", max(trial["score"] for trial in found["trials"]))
                client.set_terminated(parent, status)


def _find_or_create(
    client: MlflowClient, tags: dict[str, str], name: str, more: dict[str, str] | None = None
) -> tuple[str, bool]:
    """The MLflow run that carries some tags, which are our own words and digests; and whether it is new."""
    experiment = tracking.experiment(client)
    wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"], max_results=1)
    if found:
        return str(found[0].info.run_id), False
    return str(client.create_run(experiment, tags={**tags, **(more or {})}, run_name=name).info.run_id), True


def _log_trial(client: MlflowClient, parent: str, trial: dict[str, Any]) -> None:
    """A trial as a run inside its search's; one that is there already is left."""
    from mlflow.entities import Metric, Param

    tags = {"mlflow.parentRunId": parent, TRIAL: str(trial["number"])}
    run_id, is_new = _find_or_create(client, tags, f"trial {trial['number']}")
    if is_new:
        metrics = [Metric(name, trial[name], timestamp=0, step=0) for name in ("score", "seconds")]
        params = [Param(name, str(value)) for name, value in trial["values"].items()]
        client.log_batch(run_id, metrics=metrics, params=params)
        client.set_terminated(run_id, "FINISHED")


def _after(points: list[Point], step: int) -> list[Point]:
    return [point for point in points if point.step > step]


def _log(client: MlflowClient, run_id: str, points: list[Point]) -> None:
    from mlflow.entities import Metric

    values = [
        Metric(key, value, timestamp=round(1000 * point.time), step=point.step)
        for point in points
        for key, value in point.values.items()
    ]
    client.log_batch(run_id, metrics=values)
