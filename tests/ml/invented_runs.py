"""An invented training run on disk: an evaluation with chosen numbers, weights of random values, no patient."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from ml.cohorts.runs import TrainingRun
from ml.common.files import sha256_bytes, write_json
from ml.evaluation.results import Estimate, Evaluation, LeakWarning, MetricSet, ModelResult, TaskResult
from ml.extraction.snapshot import Snapshot
from ml.settings import get_settings

if TYPE_CHECKING:
    from ml.sequences import Vocabulary


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half)


def model_result(auroc: float = 0.8, events: int = 200, slope: float = 1.0) -> ModelResult:
    return ModelResult(
        n=4000,
        events=events,
        subjects=1500,
        auroc=estimate(auroc),
        auprc=estimate(0.3),
        brier=estimate(0.08, 0.01),
        calibration_slope=estimate(slope, 0.1),
        calibration_intercept=estimate(0.0, 0.1),
    )


def task_result(
    task: str = "heart_failure",
    auroc: float = 0.8,
    events: int = 200,
    slope: float = 1.0,
    champion_difference: Estimate | None = None,
    baseline_difference: float = 0.03,
) -> TaskResult:
    models = {
        "medbert": model_result(auroc, events, slope),
        "logistic_regression": model_result(auroc - baseline_difference, events),
        "age_sex": model_result(0.68, events),
    }
    differences = {
        "medbert-minus-logistic_regression": MetricSet(auroc=estimate(baseline_difference)),
        "medbert-minus-age_sex": MetricSet(auroc=estimate(auroc - 0.68)),
    }
    if champion_difference is not None:
        models["champion"] = model_result(auroc - champion_difference.value, events)
        differences["medbert-minus-champion"] = MetricSet(auroc=champion_difference)
    return TaskResult(task=task, horizon_days=365, all_days=models, temporal=models, differences=differences)


def evaluation(
    *tasks: TaskResult,
    run: str = "a run",
    snapshot_digest: str = "5" * 64,
    warnings: tuple[LeakWarning, ...] = (),
    as_of: date = date(2020, 1, 10),
) -> Evaluation:
    found = tasks or (task_result(),)
    return Evaluation(
        run=run,
        as_of=as_of,
        test_day=as_of.replace(year=as_of.year - 1),
        snapshot_digest=snapshot_digest,
        tasks={task.task: task for task in found},
        warnings=warnings,
        draws=100,
        seed=1,
    ).sealed()


def make_run(*tasks: TaskResult, seed: int = 1, as_of: date = date(2020, 1, 10)) -> TrainingRun:
    """A finished run in the state directory of the current settings; another seed gives other weights."""
    snapshot = Snapshot(as_of, sha256_bytes(f"{seed} {as_of}".encode()), (str(as_of),), {"ICD10CM": 900}, 120, 4)
    days = tuple(date(as_of.year - k, as_of.month, as_of.day) for k in range(1, 6))
    path = get_settings().data_dir / "training" / f"{as_of}-{snapshot.digest[:12]}"
    run = TrainingRun(snapshot, days, path)
    run.finetuned.mkdir(parents=True, exist_ok=True)
    weights = np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)
    save_file({"encoder.weight": weights}, run.finetuned / "model.safetensors")
    write_json(run.finetuned / "config.json", {"hidden": 8, "layers": 1, "vocabulary_digest": "7" * 64})
    write_json(run.finetuned / "vocabulary.json", {"tokens": ["[PAD]", "[UNK]", "ICD10CM//E11"]})
    evaluation(*tasks, run=run.name, snapshot_digest=snapshot.digest, as_of=as_of).save(run.evaluation)
    return run


def save_random_model(folder: Path, vocabulary: Vocabulary, outcomes: dict[str, int]) -> None:
    """A small Med-BERT with random weights, as fine-tuning leaves one. Imports torch."""
    import torch

    from ml.models.config import config_of
    from ml.models.files import save_model
    from ml.models.medbert import new_model
    from ml.models.presets import ModelPreset

    torch.manual_seed(7)
    shape = ModelPreset(
        hidden=16, layers=1, heads=2, feedforward=16, dropout=0.1, norm="pre", visits=8, linear_path=True
    )
    config = config_of(shape, vocabulary.size, vocabulary.digest, 32)
    config.outcomes, config.horizons = list(outcomes), list(outcomes.values())
    config.calibration = [[1.0, 0.1 * place] for place in range(len(outcomes))]
    model = new_model(config, torch.from_numpy(vocabulary.parents))
    save_model(folder, model.eval(), vocabulary, {"stage": "finetune", "inputs": "invented"})
