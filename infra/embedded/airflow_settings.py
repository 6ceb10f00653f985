"""Airflow's settings on one machine, as environment variables; nothing is left to its configuration file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

POOL = "gpu"


def fernet_key(secret: str) -> str:
    """A Fernet key (32 bytes, base64) from a generated secret."""
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()


def airflow_environment(
    home: Path, repository: Path, database: str, port: int, secrets: Mapping[str, str]
) -> dict[str, str]:
    """Environment of every Airflow process.

    Args:
        home: the state directory.
        repository: the checkout that holds ``dags`` and ``plugins``.
        database: URL of the metadata database.
        port: of the api-server.
        secrets: with ``airflow_jwt``, ``airflow_secret_key`` and ``airflow_fernet``.
    """
    url = f"http://127.0.0.1:{port}"
    place = home / "airflow"
    options = {
        "CORE__DAGS_FOLDER": repository / "dags",
        "CORE__PLUGINS_FOLDER": repository / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": 4,
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": 4,
        "CORE__FERNET_KEY": fernet_key(secrets["airflow_fernet"]),
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        # Everybody who reaches the server is an administrator: it listens on 127.0.0.1 alone.
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": True,
        "DATABASE__SQL_ALCHEMY_CONN": database,
        "DATABASE__LOAD_DEFAULT_CONNECTIONS": False,
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": url,
        "API__WORKERS": 1,
        "API__SECRET_KEY": secrets["airflow_secret_key"],
        "API_AUTH__JWT_SECRET": secrets["airflow_jwt"],
        "LOGGING__BASE_LOG_FOLDER": place / "logs",
        "DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": place / "bundles",
        "DAG_PROCESSOR__PARSING_PROCESSES": 1,
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 60,
        "DAG_PROCESSOR__REFRESH_INTERVAL": 60,
        "DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": 120,
        "CORE__DAGBAG_IMPORT_TIMEOUT": 90,  # two busy cores may be slow to import; a test holds the real budget
        "USAGE_DATA_COLLECTION__ENABLED": False,
        "OPENLINEAGE__DISABLED": True,
    }
    settings = {f"AIRFLOW__{name}": str(value) for name, value in options.items()}
    return settings | {"AIRFLOW_HOME": str(place), "SCARF_ANALYTICS": "false", "DO_NOT_TRACK": "1"}
