"""A real MLflow server, started once for the session by the first test that asks for it."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ml.settings import Settings, get_settings

_numbers = itertools.count(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory where the server keeps artifacts: a test may tamper with them there."""
    return tmp_path_factory.mktemp("mlflow") / "artifacts"


@pytest.fixture(scope="session")
def mlflow_server(mlflow_artifacts: Path) -> Iterator[str]:
    """URI of the server; it ends with the session, all its processes with it."""
    home, port = mlflow_artifacts.parent, _free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(mlflow_artifacts)]
    quiet = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
    }
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=home, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(server, uri)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait(server: subprocess.Popen[bytes], uri: str) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{uri}/health", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    pytest.fail(f"the MLflow server did not come up (exit {server.poll()})")


@pytest.fixture
def tracked(vigil: Settings, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """``vigil`` with the MLflow server, in which the test has a model name and an experiment of its own."""
    monkeypatch.setenv("VIGIL_MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("VIGIL_MODEL_NAME", f"vigil-risk-{next(_numbers)}")
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()
