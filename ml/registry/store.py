"""A version's files on this machine: fetched from MLflow once, and never believed without their digest."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.common.files import new_directory, sha256_bytes, sha256_file, sha256_json, write_bytes
from ml.registry.types import Digests, RegisteredModel
from ml.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

FINETUNED, EVALUATION, REPORT = "finetuned", "evaluation.json", "report.html"


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


def fetch_report(model: RegisteredModel) -> Path:
    """``data/reports/models/<version>.html``, digest verified. MLflow must be connected.

    Raises:
        NotFoundError: the version was registered without a report.
        RefusedError: what MLflow holds is not what was registered.
        TrackingError: MLflow does not answer.
    """
    if model.report is None:
        raise NotFoundError(
            f"version {model.version} was registered without a report", "see 'vigil review show' for its numbers"
        )
    path = get_settings().data_dir / "reports" / "models" / f"{model.version}.html"
    if path.is_file() and sha256_file(path) == model.report:
        return path
    with TemporaryDirectory() as folder:
        found = _download_report(model, Path(folder))
        if found is None or sha256_bytes(found) != model.report:
            raise RefusedError(
                f"version {model.version}: the report in MLflow is not what was registered", "find out who changed it"
            )
    write_bytes(path, found)
    return path


def _download_report(model: RegisteredModel, folder: Path) -> bytes | None:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.artifacts.download_artifacts(run_id=model.run_id, artifact_path=REPORT, dst_path=str(folder))
    except OSError:
        return None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return (folder / REPORT).read_bytes()


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
