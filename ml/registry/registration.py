"""A training run becomes one MLflow run and one model version.

Numbers, digests and weights go to MLflow, never a row of a patient: the data set is logged as a digest, the input
example is invented.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ml.cohorts.runs import TrainingRun
from ml.common.errors import ConfigError
from ml.common.files import read_json, sha256_file
from ml.evaluation.results import MEDBERT, METRICS, Evaluation, MetricSet
from ml.evaluation.words import headline
from ml.registry import tracking
from ml.registry.gates import gate
from ml.registry.store import FINETUNED, model_digest
from ml.registry.types import GateResult, RegisteredModel
from ml.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_DONE = "vigil.logged"  # set last on an MLflow run: everything is there
_DATASET_DIGEST = 36  # characters that MLflow keeps of a data set's digest; the whole one is in the tag


def register(run: TrainingRun) -> RegisteredModel:
    """Log a run and make it a model version, with the alias ``challenger`` if the gate lets it through. Idempotent.

    The same model with the same evaluation is found again, a half-logged one is completed.

    Raises:
        NotFoundError: the run has no model or no evaluation.
        ConfigError: the evaluation is of another run or another snapshot.
        TrackingError: MLflow does not answer.
    """
    evaluation = Evaluation.load(run.evaluation)
    if evaluation.run != run.name or evaluation.snapshot_digest != run.snapshot.digest:
        raise ConfigError(f"the evaluation in {run.path} is of another run", "evaluate the run again")
    verdict = gate(run)
    tags = _tags(run, evaluation, verdict)
    with tracking.connected() as client:
        run_id = _find_or_create_run(client, run, tags)
        if client.get_run(run_id).data.tags.get(_DONE) != "true":
            _log(client, run_id, run, evaluation)
        report = client.get_run(run_id).data.tags.get(tracking.REPORT)  # of the page that was logged
        tags |= {tracking.REPORT: report} if report else {}
        about = _description(run, evaluation, verdict, with_report=report is not None)
        version = _find_or_create_version(client, run_id, tags, about)
        _set_challenger(client, version)
        return tracking.version_info(client, version)


def _tags(run: TrainingRun, evaluation: Evaluation, verdict: GateResult) -> dict[str, str]:
    settings = get_settings()
    return {
        tracking.RUN: run.name,
        tracking.MODEL: model_digest(run.finetuned),
        tracking.SNAPSHOT: run.snapshot.digest,
        tracking.METRICS: evaluation.digest,
        tracking.VOCABULARY: str(read_json(run.finetuned / "config.json").get("vocabulary_digest") or "unknown"),
        tracking.GATE: "passed" if verdict.passed else "refused",
        tracking.REQUESTER: settings.requester,
        tracking.PRESET: settings.preset,
    }


def _find_or_create_run(client: MlflowClient, run: TrainingRun, tags: dict[str, str]) -> str:
    """The MLflow run of the same training run, model, evaluation and gate verdict; else a new one."""
    experiment = tracking.experiment(client)
    keys = (tracking.RUN, tracking.MODEL, tracking.METRICS, tracking.GATE)
    wanted = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in keys)  # all of them our own digests and words
    found = client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"], max_results=1)
    if found:
        return str(found[0].info.run_id)
    return str(client.create_run(experiment, tags=tags, run_name=run.name).info.run_id)


def _log(client: MlflowClient, run_id: str, run: TrainingRun, evaluation: Evaluation) -> None:
    from mlflow.entities import Metric, Param, RunStatus

    params = [Param(key, value) for key, value in _params(run).items()]
    metrics = [Metric(key, value, timestamp=0, step=0) for key, value in _metrics(evaluation).items()]
    client.log_batch(run_id, metrics=metrics, params=params)
    client.log_artifact(run_id, str(run.evaluation))
    client.log_artifact(run_id, str(run.path / "gate.json"))
    if run.report.is_file():
        client.set_tag(run_id, tracking.REPORT, sha256_file(run.report))
        client.log_artifact(run_id, str(run.report))
    _log_dataset(client, run_id, run)
    _log_model(client, run_id, run)
    client.set_tag(run_id, _DONE, "true")
    client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def _params(run: TrainingRun) -> dict[str, str]:
    """What was chosen: our settings and every plain value of the model's and the training's own files."""
    settings = get_settings()
    values: dict[str, Any] = {
        "as_of": run.as_of,
        "index_days": ",".join(map(str, run.index_days)),
        "tasks": ",".join(settings.tasks),
        "preset": settings.preset,
        "seed": settings.seed,
        "bootstrap": settings.bootstrap,
        "subjects": run.snapshot.subjects,
    }
    for name in ("config", "training"):
        values |= {f"{name}.{key}": value for key, value in _plain(run.finetuned / f"{name}.json").items()}
    return {key: str(value)[:500] for key, value in values.items()}


def _plain(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = read_json(path)
    return {key: value for key, value in content.items() if isinstance(value, str | int | float | bool)}


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    """``<task>.<metric>`` of the model, ``<task>.<model>.<metric>`` of the others, each with ``_low`` and ``_high``."""
    found: dict[str, float] = {}
    for task, result in evaluation.tasks.items():
        groups: dict[str, Mapping[str, MetricSet]] = {task: result.all_days, f"{task}.temporal": result.temporal}
        for prefix, models in [*groups.items(), (task, result.differences)]:
            found |= _all_flat(prefix, models)
    return found | _all_flat("macro", evaluation.macro.models)


def _all_flat(prefix: str, models: Mapping[str, MetricSet]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, metrics in models.items():
        found |= _flat(prefix if name == MEDBERT else f"{prefix}.{name}", metrics)
    return found


def _flat(prefix: str, metrics: MetricSet) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in METRICS:
        estimate = metrics.get(name)
        if estimate is not None:
            found[f"{prefix}.{name}"] = estimate.value
            found[f"{prefix}.{name}_low"] = estimate.low
            found[f"{prefix}.{name}_high"] = estimate.high
    return found


def _log_dataset(client: MlflowClient, run_id: str, run: TrainingRun) -> None:
    """The snapshot as MLflow's data set: our own digest and counts, no data."""
    from mlflow.entities import Dataset, DatasetInput

    profile = {"subjects": run.snapshot.subjects, "rows": run.snapshot.rows, "sha256": run.snapshot.digest}
    dataset = Dataset(
        name=f"snapshot {run.as_of}",
        digest=run.snapshot.digest[:_DATASET_DIGEST],
        source_type="vigil-snapshot",
        source=json.dumps({"as_of": run.as_of.isoformat(), "sha256": run.snapshot.digest}),
        profile=json.dumps(profile),
    )
    client.log_inputs(run_id, [DatasetInput(dataset)])


def _log_model(client: MlflowClient, run_id: str, run: TrainingRun) -> None:
    """Upload the model; only a whole one becomes READY and an output of the run.

    Not by ``mlflow.pyfunc.log_model``, which loads the model again to try its example: seconds, and a failure is but a
    warning. That the stored model loads and predicts is a test's business.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    from ml.registry import signature

    experiment = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    about = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        mlflow.pyfunc.save_model(
            path,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),  # its text is the model's code: no pickle
            artifacts={FINETUNED: str(run.finetuned)},
            signature=signature.signature(),
            input_example=signature.invented_example(),
            pip_requirements=["vigil", "torch", "transformers", "safetensors", "polars", "numpy", "pandas"],
            mlflow_model=about,
        )
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def _description(run: TrainingRun, evaluation: Evaluation, verdict: GateResult, *, with_report: bool) -> str:
    """What a person who finds the version in MLflow should know first."""
    words = [f"Trained on the snapshot of {run.as_of}. {headline(evaluation)} Gate: {verdict.reason}."]
    if with_report:
        words.append(f"Report: artifact {run.report.name} of the source run, or `vigil review report VERSION`.")
    return "\n\n".join(words)


def _find_or_create_version(client: MlflowClient, run_id: str, tags: dict[str, str], description: str) -> int:
    from mlflow.exceptions import MlflowException

    name = get_settings().model_name
    try:
        client.create_registered_model(name, description="Risk of disease within a year, from health records (Vigil).")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    if found:
        return min(int(version.version) for version in found)
    model_id = _logged_model(client, run_id)
    created = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=tags,
        description=description,
        model_id=model_id,
    )
    return int(created.version)


def _logged_model(client: MlflowClient, run_id: str) -> str:
    """Id of the run's model; only whole ones are outputs of a run."""
    outputs = client.get_run(run_id).outputs.model_outputs
    return str(outputs[-1].model_id)


def _set_challenger(client: MlflowClient, version: int) -> None:
    """The alias goes to a passing version that is not in use, and never from a newer version back to an older one."""
    model = tracking.version_info(client, version)
    if model.gate != "passed" or tracking.CHAMPION in model.aliases:
        return
    current = tracking.by_alias(client, tracking.CHALLENGER)
    champion = tracking.by_alias(client, tracking.CHAMPION)
    newest = max((m.version for m in (current, champion) if m is not None), default=0)
    if version > newest:
        client.set_registered_model_alias(get_settings().model_name, tracking.CHALLENGER, str(version))
