"""Fixtures of all tests: one real Postgres and one real MLflow for the session, a fresh Vigil for each test."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ml.settings import Role, Settings, get_settings

_numbers = itertools.count(1)


@dataclass(frozen=True)
class TestServer:
    """The session's Postgres, with two template databases from which each test's own are copied."""

    __test__ = False

    admin_dsn: str = field(repr=False)
    passwords: Mapping[Role, str] = field(repr=False)

    def dsn(self, role: Role, database: str) -> str:
        """Connection string of a role to a database of this server."""
        from psycopg2.extensions import parse_dsn

        from infra.postgres.setup import role_name

        place = parse_dsn(self.admin_dsn)
        login = f"{role_name(role)}:{self.passwords[role]}"
        return f"postgresql://{login}@{place['host']}:{place['port']}/{database}"

    def dsns(self, ehr: str, vigil: str) -> dict[Role, str]:
        """Connection strings of all roles."""
        from infra.postgres.setup import EHR_ROLES

        return {role: self.dsn(role, ehr if role in EHR_ROLES else vigil) for role in Role}


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """One embedded server for all tests, roles and migrated templates in it; gone with the session."""
    from infra.embedded import postgres as embedded
    from infra.postgres.migrate import migrate
    from infra.postgres.setup import bootstrap

    with tempfile.TemporaryDirectory(prefix="vigil-test-") as directory:
        home = Path(directory)
        cluster = embedded.start(home, throwaway=True)
        try:
            server = TestServer(cluster.dsn(), {role: secrets.token_hex(16) for role in Role})
            bootstrap(server.admin_dsn, server.dsns("ehr_template", "vigil_template"))
            migrate(server.dsn(Role.MIGRATE, "vigil_template"))
            yield server
        finally:
            embedded.remove(home)


@pytest.fixture
def vigil(postgres: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a fresh deployment: two new databases, a new state directory, every ``VIGIL_*`` variable set.

    ``ml.common.db.connect(Role.X)`` just works. Variables of the caller's own deployment are taken away first.
    """
    from infra.postgres.setup import EHR_ROLES, VIGIL_ROLES, administer, create_database, drop_database, role_name

    number = next(_numbers)
    ehr, own = f"ehr_{number}", f"vigil_{number}"
    with administer(postgres.admin_dsn) as admin:
        create_database(admin, ehr, template="ehr_template", connect=map(role_name, EHR_ROLES))
        create_database(
            admin,
            own,
            template="vigil_template",
            owner=role_name(Role.MIGRATE),
            connect=map(role_name, VIGIL_ROLES),
        )
    for name in [name for name in os.environ if name.startswith("VIGIL_") and name != "VIGIL_TEST_DATA"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VIGIL_HOME", str(tmp_path / "vigil"))
    monkeypatch.setenv("VIGIL_EMBEDDED", "true")
    monkeypatch.setenv("VIGIL_PSEUDONYM_KEY", "0123456789abcdef" * 4)
    for role, dsn in postgres.dsns(ehr, own).items():
        monkeypatch.setenv(f"VIGIL_{role.value.upper()}_DSN", dsn)
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()
    with administer(postgres.admin_dsn) as admin:
        drop_database(admin, ehr)
        drop_database(admin, own)


@pytest.fixture(scope="session")
def records() -> Path:
    """Directory of the real records that some tests need; skips where ``VIGIL_TEST_DATA`` names none."""
    place = os.environ.get("VIGIL_TEST_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("VIGIL_TEST_DATA names no directory: tests on real records are skipped")
    return Path(place)


_models = itertools.count(1)


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
    monkeypatch.setenv("VIGIL_MODEL_NAME", f"vigil-risk-{next(_models)}")
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()
