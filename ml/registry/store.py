"""A version's files on this machine: fetched from MLflow once, and never believed without their digest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.common.files import new_directory, sha256_file, sha256_json
from ml.registry.types import Digests, RegisteredModel
from ml.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

FINETUNED, EVALUATION = "finetuned", "evaluation.json"


def model_digest(folder: Path) -> str:
    """SHA-256 over the sorted names and digests of all files of a model's folder, the vocabulary among them.

    Raises:
        NotFoundError: it holds no model with its vocabulary.
    """
    absent = [name for name in ("config.json", "model.safetensors", "vocabulary.json") if not (folder / name).is_file()]
    if absent:
        raise NotFoundError(f"{folder} holds no {', '.join(absent)}", "run the retraining's fine-tuning first")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return sha256_json([[file.relative_to(folder).as_posix(), sha256_file(file)] for file in files])


def fetch_files(client: MlflowClient, model: RegisteredModel, *, fresh: bool = False) -> Path:
    """``data/models/<version>`` with ``finetuned/`` and ``evaluation.json``, digests verified.

    Args:
        fresh: download again even if a good copy is here, so that what MLflow holds is what is verified.

    Raises:
        RefusedError: what MLflow holds is not what was registered.
        TrackingError: MLflow does not answer.
    """
    path = get_settings().data_dir / "models" / str(model.version)
    if not fresh and path.is_dir() and mismatch(path, model) is None:
        return path
    with new_directory(path) as working:
        _download(client, model, working)
        wrong = mismatch(working, model)
        if wrong is not None:
            raise RefusedError(
                f"version {model.version}: {wrong} in MLflow is not what was registered",
                "find out who changed it; register a new version or 'vigil review rollback'",
            )
    return path


def _download(client: MlflowClient, model: RegisteredModel, target: Path) -> None:
    import mlflow

    download = mlflow.artifacts.download_artifacts
    try:
        download(artifact_uri=f"models:/{get_settings().model_name}/{model.version}", dst_path=str(target / "mlflow"))
        shutil.move(target / "mlflow" / "artifacts" / FINETUNED, target / FINETUNED)
        shutil.rmtree(target / "mlflow")
        download(run_id=model.run_id, artifact_path=EVALUATION, dst_path=str(target))
    except OSError:
        raise RefusedError(
            f"version {model.version}: files are missing in MLflow", "register a new version or 'vigil review rollback'"
        ) from None


def mismatch(path: Path, model: RegisteredModel) -> str | None:
    """What of the files differs from the registered digests, in words; None if nothing does."""
    try:
        if model_digest(path / FINETUNED) != model.digests.model:
            return "the model"
        return _evaluation_mismatch(path / EVALUATION, model.digests)
    except (OSError, NotFoundError):
        return "a missing file"


def _evaluation_mismatch(path: Path, digests: Digests) -> str | None:
    from ml.evaluation.results import Evaluation

    try:
        evaluation = Evaluation.load(path)
    except ConfigError:
        return "the evaluation"
    if evaluation.digest != digests.metrics:
        return "the evaluation"
    return None if evaluation.snapshot_digest == digests.snapshot else "the snapshot's digest"
