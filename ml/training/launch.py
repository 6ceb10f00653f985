"""Start a training worker, pass its lines on, and end it with us."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ml.cohorts.runs import TrainingRun
from ml.common.errors import ConfigError, NotFoundError, QualityError, RefusedError, VigilError
from ml.common.files import read_json
from ml.training.interruption import OutOfMemoryError, StoppedError
from ml.training.space import best_path

log = logging.getLogger(__name__)

ERROR_PREFIX = "vigil-error "  # a worker's line with [kind, cause, remedy] as JSON
SUMMARY = ("stage", "tokens", "seconds", "tokens_per_second", "final_loss", "weights")
KINDS = {
    kind.__name__: kind
    for kind in (ConfigError, NotFoundError, QualityError, RefusedError, StoppedError, OutOfMemoryError)
}
HALVINGS = 6  # of a micro-batch's positions, tried one after the other
GRACE = 60.0  # seconds that a worker has for its checkpoint
Stage = Literal["pretrain", "finetune", "recurrent"]


def launch(
    stage: Stage, run: TrainingRun, initial: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a stage in fresh interpreters; their lines go to this process's log.

    Several processes that run out of memory start again from their checkpoint with micro-batches of half the size;
    one alone goes on by itself.

    Args:
        stage: which.
        run: the training run.
        initial: folder of a model that pretraining starts from (the champion).
        environment: variables added to this process's.

    Returns:
        Numbers of the stage (tokens, seconds, tokens per second, loss) and the digest of the weights.

    Raises:
        VigilError: what the worker raised, or its last line if it died of something unknown.
        StoppedError: it was asked to stop, and wrote a checkpoint.
    """
    command = _command(stage, run, initial)
    for halvings in range(HALVINGS + 1):
        try:
            _run([*command, "--halvings", str(halvings)], stage, environment or {})
            break
        except OutOfMemoryError as error:
            if halvings == HALVINGS or "one sequence" in error.cause:
                raise
            log.warning("%s; starting again with half of that", error.cause)
    folder = {"pretrain": run.pretrained, "finetune": run.finetuned, "recurrent": run.recurrent}[stage]
    record = read_json(folder / "training.json")
    return {name: record[name] for name in SUMMARY}


def launch_search(run: TrainingRun, trials: int, initial: Path | None = None) -> dict[str, Any]:
    """Search hyper-parameters in a fresh interpreter (see `ml.training.search`); one process, whatever the settings.

    Returns:
        The best values, their score and the number of trials that ended with one.

    Raises:
        VigilError, StoppedError: as `launch`.
    """
    _run([*_command("search", run, initial), "--trials", str(trials)], "search", {"VIGIL_TRAINING_PROCESSES": "1"})
    found = read_json(best_path(run.path))
    return {name: found[name] for name in ("values", "score", "trials")}


def _command(stage: str, run: TrainingRun, initial: Path | None) -> list[str]:
    command = [sys.executable, "-m", "ml.training.worker", stage, "--as-of", str(run.as_of)]
    command += ["--parent", str(os.getpid())]
    return command if initial is None else [*command, "--initial", str(initial)]


def _run(command: list[str], stage: str, environment: Mapping[str, str]) -> None:
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | dict(environment) | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        with _stops_passed_on(process):
            last, error = _relay(process)
            status = process.wait()
    finally:  # a task that is stopped takes its worker along
        _end(process)
    if error is not None:
        raise error
    if status:
        raise VigilError(f"the {stage} worker ended with status {status} ({last})", "see the lines above in this log")


@contextmanager
def _stops_passed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """SIGTERM to us asks the worker to stop: it writes a checkpoint, ends, and its error becomes ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _relay(process: subprocess.Popen[str]) -> tuple[str, VigilError | None]:
    """Log every line; the last one, and the first error that a worker announced."""
    last, error = "no output", None
    assert process.stdout is not None
    for raw in process.stdout:
        line = raw.rstrip()
        if line.startswith(ERROR_PREFIX):
            kind, cause, remedy = json.loads(line[len(ERROR_PREFIX) :])
            error = error or KINDS.get(kind, VigilError)(cause, remedy)
        elif line:
            last = line
            log.info("%s", line)
    return last, error
