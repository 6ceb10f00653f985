"""A stage of training in a fresh interpreter: ``python -m ml.training.worker pretrain --as-of 2024-06-30``.

Torch and CUDA must not be touched before Airflow's fork, so a task starts this program (`launch`). It dies with the
process that started it, so that a killed task leaves no training behind that holds the GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
from datetime import date
from pathlib import Path

from ml.common.errors import VigilError
from ml.training.launch import ERROR_PREFIX

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None) -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux); end now if it already has."""
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; the exit status."""
    parser = argparse.ArgumentParser(description="One stage of training.")
    parser.add_argument("stage", choices=("pretrain", "finetune"))
    parser.add_argument("--as-of", type=date.fromisoformat, required=True)
    parser.add_argument("--initial", type=Path, help="folder of a model to start pretraining from")
    parser.add_argument("--parent", type=int, help="process to die with")
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    try:
        _run(options.stage, options.as_of, options.initial)
    except VigilError as error:
        print(ERROR_PREFIX + json.dumps([error.cause, error.remedy]), flush=True)
        return error.exit_code
    return 0


def _run(stage: str, as_of: date, initial: Path | None) -> None:
    from ml.cohorts import open_run

    run = open_run(as_of)
    if stage == "pretrain":
        from ml.training.pretraining import pretrain

        pretrain(run, initial)
    else:
        from ml.training.finetuning import finetune

        finetune(run)


if __name__ == "__main__":
    sys.exit(main())
