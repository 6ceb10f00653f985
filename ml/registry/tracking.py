"""The one way to MLflow: short timeouts, our errors, our names of tags.

MLflow costs seconds to import, so it is imported inside functions only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx

from ml.common.errors import ConfigError, NotFoundError, VigilError
from ml.registry.types import Digests, RegisteredModel
from ml.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER = "champion", "challenger"
EXPERIMENT = "vigil-retraining"
# Tags, on the MLflow run and on the model version alike.
RUN, MODEL, SNAPSHOT, METRICS, VOCABULARY, GATE, REQUESTER, PRESET, REPORT = (
    "vigil.run",
    "vigil.model_digest",
    "vigil.snapshot_digest",
    "vigil.metrics_digest",
    "vigil.vocabulary_digest",
    "vigil.gate",
    "vigil.requested_by",
    "vigil.preset",
    "vigil.report_digest",
)


class TrackingError(VigilError):
    """MLflow cannot be reached or refuses a call."""

    exit_code = 7


def _check_reachable(uri: str) -> None:
    """Ask for MLflow's health first: its client would retry for minutes and end in a page of traceback."""
    if not uri.startswith(("http://", "https://")):
        return
    remedy = "check that the server runs and VIGIL_MLFLOW_TRACKING_URI is right (on one machine: vigil stack status)"
    try:
        status = httpx.get(f"{uri.rstrip('/')}/health", timeout=10.0).status_code
    except httpx.HTTPError as error:
        raise TrackingError(
            f"cannot reach MLflow at {_without_password(uri)} ({type(error).__name__})", remedy
        ) from None
    if status != 200:
        raise TrackingError(f"MLflow at {_without_password(uri)} is not healthy (HTTP {status})", remedy)


def _without_password(uri: str) -> str:
    return str(httpx.URL(uri).copy_with(userinfo=b""))


def configure() -> None:
    """Import MLflow, point it to our server, and make it fail soon instead of retrying for minutes.

    Raises:
        TrackingError: the server does not answer.
    """
    uri = get_settings().mlflow_tracking_uri
    _check_reachable(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by MLflow while it is imported
    import mlflow
    from mlflow import environment_variables as variables

    variables.MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(2)
    variables.MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.set(1)
    variables.MLFLOW_HTTP_REQUEST_TIMEOUT.set(30)
    variables.MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)
    variables.MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


@contextmanager
def connected() -> Iterator[MlflowClient]:
    """A client; any failure of MLflow inside the block becomes one line.

    Raises:
        TrackingError: the server cannot be reached, or refuses a call.
    """
    configure()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        yield MlflowClient()
    except MlflowException as error:
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no message"
        raise TrackingError(f"MLflow refused a call ({error.error_code}: {first})", "see MLflow's own log") from error


def experiment(client: MlflowClient) -> str:
    """Id of the experiment that holds every retraining.

    Raises:
        ConfigError: it was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT))
        except MlflowException:  # another one was faster
            found = client.get_experiment_by_name(EXPERIMENT)
    if found is None or found.lifecycle_stage != "active":
        raise ConfigError(f"the MLflow experiment '{EXPERIMENT}' was deleted", "restore it in MLflow")
    return str(found.experiment_id)


def _absent(error: Any) -> bool:
    """MLflow answers an unknown alias with INVALID_PARAMETER_VALUE, an unknown model with RESOURCE_DOES_NOT_EXIST."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
        error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in str(error) and "not found" in str(error)
    )


def by_alias(client: MlflowClient, alias: str) -> RegisteredModel | None:
    """The version that carries an alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(get_settings().model_name, alias)
    except MlflowException as error:
        if _absent(error):
            return None
        raise
    return version_info(client, int(found.version))


def version_info(client: MlflowClient, version: int) -> RegisteredModel:
    """One version with its digests and aliases.

    Raises:
        NotFoundError: there is no such version, or it was not registered by Vigil.
    """
    from mlflow.exceptions import MlflowException

    name = get_settings().model_name
    try:
        found = client.get_model_version(name, str(version))
    except MlflowException as error:
        if _absent(error):
            raise NotFoundError(f"model '{name}' has no version {version}", "see 'vigil review list'") from None
        raise
    # Search results carry no aliases and, in some stores, nor does the version: the registered model has them all.
    aliases = client.get_registered_model(name).aliases
    return from_mlflow(found, tuple(sorted(a for a, v in aliases.items() if int(v) == version)))


def from_mlflow(found: ModelVersion, aliases: tuple[str, ...]) -> RegisteredModel:
    """Read our tags off a model version.

    Raises:
        NotFoundError: they are not there.
    """
    tags = found.tags
    absent = [tag for tag in (RUN, MODEL, SNAPSHOT, METRICS, VOCABULARY, GATE, REQUESTER) if not tags.get(tag)]
    if absent:
        raise NotFoundError(
            f"version {found.version} of model '{found.name}' lacks {', '.join(absent)}: Vigil did not register it",
            "register models with the retraining, and name a version that 'vigil review list' shows",
        )
    return RegisteredModel(
        version=int(found.version),
        name=tags[RUN],
        run_id=found.run_id,
        gate="passed" if tags[GATE] == "passed" else "refused",
        digests=Digests(tags[MODEL], tags[SNAPSHOT], tags[METRICS]),
        vocabulary_digest=tags[VOCABULARY],
        requested_by=tags[REQUESTER],
        aliases=aliases,
        source=found.source,
        report=tags.get(REPORT),
    )


def all_versions(client: MlflowClient) -> list[RegisteredModel]:
    """Every version that Vigil registered, newest first."""
    from mlflow.exceptions import MlflowException

    name = get_settings().model_name
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as error:
        if _absent(error):
            return []
        raise
    found = client.search_model_versions(f"name = '{name}'")
    ours = [v for v in found if v.tags.get(RUN)]
    carried = {int(v.version): tuple(sorted(a for a, w in aliases.items() if int(w) == int(v.version))) for v in ours}
    return sorted((from_mlflow(v, carried[int(v.version)]) for v in ours), key=lambda m: -m.version)
