"""Start a training worker, pass its lines on, and end it with us."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ml.cohorts.runs import TrainingRun
from ml.common.errors import VigilError
from ml.common.files import read_json

log = logging.getLogger(__name__)

ERROR_PREFIX = "vigil-error "  # a worker's line with [cause, remedy] as JSON
SUMMARY = ("stage", "tokens", "seconds", "tokens_per_second", "final_loss", "weights")
Stage = Literal["pretrain", "finetune"]


def launch(
    stage: Stage, run: TrainingRun, initial: Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run ``pretrain`` or ``finetune`` in a fresh interpreter; its lines go to this process's log.

    Args:
        stage: which.
        run: the training run.
        initial: folder of a model that pretraining starts from (the champion).
        environment: variables added to this process's.

    Returns:
        Numbers of the stage (tokens, seconds, tokens per second, loss) and the digest of the weights.

    Raises:
        VigilError: what the worker raised, or its last line if it died of something unknown.
    """
    command = [sys.executable, "-m", "ml.training.worker", stage, "--as-of", str(run.as_of)]
    command += ["--parent", str(os.getpid())]
    if initial is not None:
        command += ["--initial", str(initial)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | dict(environment or {}) | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        last, error = _relay(process)
        status = process.wait()
    finally:  # a task that is stopped takes its worker along
        if process.poll() is None:
            process.kill()
            process.wait()
    if error is not None:
        raise error
    if status:
        raise VigilError(f"the {stage} worker ended with status {status} ({last})", "see the lines above in this log")
    record = read_json((run.pretrained if stage == "pretrain" else run.finetuned) / "training.json")
    return {name: record[name] for name in SUMMARY}


def _relay(process: subprocess.Popen[str]) -> tuple[str, VigilError | None]:
    """Log every line; the last one, and the error the worker announced."""
    last, error = "no output", None
    assert process.stdout is not None
    for raw in process.stdout:
        line = raw.rstrip()
        if line.startswith(ERROR_PREFIX):
            error = VigilError(*json.loads(line[len(ERROR_PREFIX) :]))
        elif line:
            last = line
            log.info("%s", line)
    return last, error
