"""A stage of training in a fresh interpreter: ``python -m ml.training.worker pretrain --as-of 2024-06-30``.

Torch and CUDA must not be touched before Airflow's fork, so a task starts this program (`launch`). It dies with the
process that started it, so that a killed task leaves no training behind that holds the GPU. Where
VIGIL_TRAINING_PROCESSES is more than one it becomes `torchrun`, which starts it as often; a person may also call
`torchrun` on several machines that share VIGIL_HOME.
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
from ml.settings import get_settings
from ml.training import interruption
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
    """Run one stage; the exit status: 75 where it was asked to stop and can go on."""
    parser = argparse.ArgumentParser(description="One stage of training.")
    parser.add_argument("stage", choices=("pretrain", "finetune", "recurrent", "search"))
    parser.add_argument("--as-of", type=date.fromisoformat, required=True)
    parser.add_argument("--initial", type=Path, help="folder of a model to start pretraining from")
    parser.add_argument("--trials", type=int, default=1, help="of a search")
    parser.add_argument("--halvings", type=int, default=0, help="of the positions of a micro-batch")
    parser.add_argument("--parent", type=int, help="process to die with")
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    processes = get_settings().training_processes
    if processes > 1 and not _is_one_of_several():
        _become_torchrun(processes, options)
    interruption.listen()
    level = logging.WARNING if _is_one_of_several() and not _is_first() else logging.INFO
    logging.basicConfig(level=level, stream=sys.stdout, format="%(message)s")
    try:
        _run(options)
    except VigilError as error:
        print(ERROR_PREFIX + json.dumps([type(error).__name__, error.cause, error.remedy]), flush=True)
        return error.exit_code
    return 0


def _is_one_of_several() -> bool:
    import torch.distributed as dist

    return dist.is_available() and dist.is_torchelastic_launched()


def _is_first() -> bool:
    from ml.training.world import world

    return world().first


def _become_torchrun(processes: int, options: argparse.Namespace) -> None:
    """Replace this program; the kernel's promise to end it with its parent outlives that."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "ml.training.worker", options.stage, "--as-of", str(options.as_of), "--parent", str(os.getpid())]
    command += ["--halvings", str(options.halvings)]
    if options.initial is not None:
        command += ["--initial", str(options.initial)]
    os.execv(sys.executable, command)


def _run(options: argparse.Namespace) -> None:
    from ml.cohorts import open_run
    from ml.training.world import leave

    run = open_run(options.as_of)
    if options.stage == "pretrain":
        from ml.training.pretraining import pretrain

        pretrain(run, options.initial, options.halvings)
    elif options.stage == "search":
        from ml.training.search import search

        search(run, options.trials, options.initial)
    elif options.stage == "recurrent":
        from ml.training.recurrent import train_recurrent

        train_recurrent(run, options.halvings)
    else:
        from ml.training.finetuning import finetune

        finetune(run, options.halvings)
    leave()


if __name__ == "__main__":
    sys.exit(main())
