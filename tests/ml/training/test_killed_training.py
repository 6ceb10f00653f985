"""The real worker, killed, stopped, or one of two: the model is the one of a training that nothing disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from safetensors.torch import load_file

from ml.cohorts import TrainingRun, make_labels, open_run
from ml.common.files import read_json, sha256_file
from ml.sequences import prepare
from ml.settings import get_settings
from ml.training import finetune, launch, pretrain
from ml.training.checkpoints import TENSORS
from ml.training.interruption import StoppedError
from tests.ml.synthetic_log import commit, deployment, make_events

TASKS = '["heart_failure", "type_2_diabetes"]'
Stage = Literal["pretrain", "finetune"]
STAGES: tuple[Stage, ...] = ("pretrain", "finetune")


def prepared() -> TrainingRun:
    commit(make_events(900, 25))
    run = open_run()
    prepare(run)
    make_labels(run)
    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[Stage, Path]:
    """Folders of the models of one run that nothing disturbed."""
    with deployment(tmp_path_factory.mktemp("undisturbed"), tasks=TASKS, index_days="3", threads="2"):
        run = prepared()
        pretrain(run)
        finetune(run)
        return {stage: folder_of(run, stage) for stage in STAGES}


@pytest.fixture
def disturbed(tmp_path: Path) -> Iterator[TrainingRun]:
    """The same inputs in another place, with a checkpoint after every step."""
    with deployment(tmp_path, tasks=TASKS, index_days="3", threads="2", checkpoint_seconds="0"):
        yield prepared()


def folder_of(run: TrainingRun, stage: Stage) -> Path:
    return run.pretrained if stage == "pretrain" else run.finetuned


def weights(folder: Path) -> str:
    return sha256_file(folder / "model.safetensors")


def worker(run: TrainingRun, stage: Stage) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ml.training.worker", stage, "--as-of", str(run.as_of)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_saved(run: TrainingRun, stage: Stage) -> list[Path]:
    return sorted((run.path / "checkpoints" / stage).glob("*/[0-9]*"))


def reached(process: subprocess.Popen[str], run: TrainingRun, stage: Stage, step: int) -> bool:
    """Wait until a step is saved; False where the worker ended before."""
    while process.poll() is None:
        found = steps_saved(run, stage)
        if found and int(found[-1].name) >= step:
            return True
        time.sleep(0.002)
    return False


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_killed_at_random_steps_ends_with_the_same_weights_to_the_bit(
    disturbed: TrainingRun, undisturbed: dict[Stage, Path], stage: Stage, kills: int
) -> None:
    steps = read_json(undisturbed[stage] / "training.json")["steps"]
    assert steps > 12
    if stage == "finetune":
        shutil.copytree(undisturbed["pretrain"], disturbed.pretrained)
    rng = random.Random(f"{stage} {kills}")
    for kill_at in sorted(rng.sample(range(2, steps - 3), kills)):
        process = worker(disturbed, stage)
        assert reached(process, disturbed, stage, kill_at)
        time.sleep(rng.random() * 0.05)  # into a step, or into the middle of a checkpoint
        process.kill()
        process.wait()
        assert not folder_of(disturbed, stage).exists()
    newest = steps_saved(disturbed, stage)[-1]  # and one that was damaged since
    content = bytearray((newest / TENSORS).read_bytes())
    content[-1] ^= 1
    (newest / TENSORS).write_bytes(bytes(content))
    launch(stage, disturbed)
    record = read_json(folder_of(disturbed, stage) / "training.json")
    assert record["resumed"] >= 1
    assert record["losses"] == read_json(undisturbed[stage] / "training.json")["losses"]
    assert weights(folder_of(disturbed, stage)) == weights(undisturbed[stage])
    assert not (disturbed.path / "checkpoints" / stage).exists()


def test_sigterm_to_the_task_lets_the_worker_write_a_checkpoint_and_the_next_try_goes_on(
    disturbed: TrainingRun, undisturbed: dict[Stage, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_CHECKPOINT_SECONDS", "3600")
    program = (
        "from ml.cohorts import open_run\nfrom ml.training import launch\nimport sys\n"
        "try:\n    launch('pretrain', open_run())\nexcept Exception as error:\n"
        "    print(type(error).__name__, error)\n    sys.exit(error.exit_code)\n"
    )
    task = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    progress = get_settings().data_dir / "progress" / "pretrain.json"
    while not progress.exists():
        assert task.poll() is None
        time.sleep(0.005)
    task.send_signal(signal.SIGTERM)
    said, _ = task.communicate()
    assert task.returncode == StoppedError.exit_code
    assert "StoppedError pretrain stopped at" in said
    assert "run it again to go on" in said
    assert len(steps_saved(disturbed, "pretrain")) == 1
    launch("pretrain", disturbed)
    assert read_json(disturbed.pretrained / "training.json")["resumed"] == 1
    assert weights(disturbed.pretrained) == weights(undisturbed["pretrain"])


@pytest.mark.parametrize("stage", ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)])
def test_two_processes_reach_the_loss_of_one(
    disturbed: TrainingRun, undisturbed: dict[Stage, Path], stage: Stage
) -> None:
    """At the same global batch. Dropout is on: a micro-batch drops the same whichever process works on it."""
    if stage == "finetune":
        shutil.copytree(undisturbed["pretrain"], disturbed.pretrained)
    launch(stage, disturbed, environment={"VIGIL_TRAINING_PROCESSES": "2", "VIGIL_CHECKPOINT_SECONDS": "60"})
    two, one = (read_json(f / "training.json") for f in (folder_of(disturbed, stage), undisturbed[stage]))
    assert two["processes"] == 2
    assert (two["tokens"], two["steps"]) == (one["tokens"], one["steps"])
    assert two["final_loss"] == pytest.approx(one["final_loss"], abs=1e-3)
    ours, theirs = (load_file(f / "model.safetensors") for f in (folder_of(disturbed, stage), undisturbed[stage]))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-2


@pytest.mark.slow
def test_two_processes_killed_go_on_with_one(disturbed: TrainingRun, undisturbed: dict[Stage, Path]) -> None:
    program = "from ml.cohorts import open_run\nfrom ml.training import launch\nlaunch('pretrain', open_run())\n"
    task = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"VIGIL_TRAINING_PROCESSES": "2"}, start_new_session=True
    )
    assert reached(task, disturbed, "pretrain", 3)  # type: ignore[arg-type]
    task.kill()
    task.wait()
    deadline = time.monotonic() + 20
    while alive(task.pid) and time.monotonic() < deadline:  # its session: torchrun and both workers die with it
        time.sleep(0.1)
    assert not alive(task.pid)
    launch("pretrain", disturbed)
    record = read_json(disturbed.pretrained / "training.json")
    assert (record["resumed"], record["processes"]) == (1, 1)
    assert record["final_loss"] == pytest.approx(
        read_json(undisturbed["pretrain"] / "training.json")["final_loss"], abs=1e-3
    )


SHORT_OF_MEMORY = """
import torch
import ml.training.pretraining as pretraining
fits = pretraining.mlm_loss
def mlm_loss(model, batch, masked, **more):
    if batch.tokens.size > 600 and torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return fits(model, batch=batch, masked=masked, **more)
pretraining.mlm_loss = mlm_loss
"""


@pytest.mark.slow
def test_where_one_of_several_processes_is_short_of_memory_all_begin_again_with_smaller_micro_batches(
    disturbed: TrainingRun, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHORT_OF_MEMORY)
    places = f"{tmp_path}{os.pathsep}{Path(__file__).resolve().parents[3]}"
    launch("pretrain", disturbed, environment={"VIGIL_TRAINING_PROCESSES": "2", "PYTHONPATH": places})
    record = read_json(disturbed.pretrained / "training.json")
    assert (record["halvings"], record["processes"]) == (1, 2)


def alive(session: int) -> list[int]:
    """Processes of a session that are not zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found
