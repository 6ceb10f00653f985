"""The Python servers of the stack: what each is called, how it is started, and when it is healthy."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx

from infra.embedded import processes
from infra.embedded.airflow_settings import airflow_environment
from infra.embedded.environment import daemon_environment
from infra.embedded.processes import Daemon

MLFLOW = "mlflow"
AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor")
SECRETS = ("airflow_jwt", "airflow_secret_key", "airflow_fernet", "pseudonym_key")
DATABASES = ("mlflow", "airflow")  # each owned by a role of its name
PORTS = ("postgres", "mlflow", "airflow")


@dataclass(frozen=True)
class Service:
    """One daemon.

    Attributes:
        port: where it listens, or None.
        health: URL that tells whether it is healthy.
        part: for a part of Airflow without a port of its own: its name in Airflow's health report.
    """

    name: str
    home: Path
    command: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    health: str
    url: str | None = None
    port: int | None = None
    port_name: str = ""
    part: str | None = None

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.home / "run" / f"{self.name}.json"

    def daemon(self) -> Daemon | None:
        """The running daemon, or None."""
        known = processes.load(self.pid_file)
        return known if known and known.process() else None

    def healthy(self, daemon: Daemon) -> bool:
        """Whether the server answers; for a part of Airflow, whether it reported since it was started."""
        try:
            answer = httpx.get(self.health, timeout=5.0, trust_env=False)
            if answer.status_code != httpx.codes.OK:
                return False
            return self.part is None or _reported(answer.json()[self.part], self.part, daemon)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return False


def _reported(report: Mapping[str, str], part: str, daemon: Daemon) -> bool:
    """A healthy state with a heartbeat of this daemon, not of one before it."""
    if report["status"] != "healthy" or part == "metadatabase":
        return report["status"] == "healthy"
    return datetime.fromisoformat(report[f"latest_{part}_heartbeat"]).timestamp() >= daemon.created


def services(home: Path, repository: Path, ports: Mapping[str, int], secrets: Mapping[str, str]) -> list[Service]:
    """Every server but Postgres, in the order they are shown."""
    mlflow_url, airflow_url = (f"http://127.0.0.1:{ports[name]}" for name in ("mlflow", "airflow"))
    database = {name: database_url(ports["postgres"], name, secrets, "postgresql+psycopg2") for name in DATABASES}
    mlflow_env = {"MLFLOW_BACKEND_STORE_URI": database["mlflow"], "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    found = [
        Service(
            MLFLOW,
            home,
            (sys.executable, "-m", "infra.embedded.mlflow_server", str(ports["mlflow"]), str(home / "mlflow")),
            daemon_environment(home, mlflow_env),
            f"{mlflow_url}/health",
            url=mlflow_url,
            port=ports["mlflow"],
            port_name="mlflow",
        )
    ]
    env = daemon_environment(
        home, airflow_environment(home, repository, database["airflow"], ports["airflow"], secrets)
    )
    parts = {
        AIRFLOW[0]: (("api-server",), "metadatabase"),
        AIRFLOW[1]: (("scheduler", "--skip-serve-logs"), "scheduler"),  # the api-server reads logs from the disk
        AIRFLOW[2]: (("dag-processor",), "dag_processor"),
    }
    for name, (arguments, part) in parts.items():
        api = name == AIRFLOW[0]
        found.append(
            Service(
                name,
                home,
                (sys.executable, "-m", "airflow", *arguments),
                env,
                f"{airflow_url}/api/v2/monitor/health",
                url=airflow_url if api else None,
                port=ports["airflow"] if api else None,
                port_name="airflow",
                part=part,
            )
        )
    return found


def database_url(port: int, name: str, secrets: Mapping[str, str], scheme: str = "postgresql") -> str:
    """URL of a database as the role of its name. Generated passwords need no escape."""
    return f"{scheme}://{name}:{secrets[f'postgres_{name}']}@127.0.0.1:{port}/{name}"
