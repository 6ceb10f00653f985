"""An Airflow of the tests' own. Airflow reads its environment at import, so it is set here, before any import."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

ROOT = Path(__file__).parents[2]
_home = tempfile.TemporaryDirectory(prefix="vigil-airflow-")
os.environ.update(
    {
        "AIRFLOW_HOME": _home.name,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of the tests alone, and long enough: " + "0123456789" * 4,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home.name}/airflow.db",
        "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "http.access=ERROR airflow=WARNING",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": f"{_home.name}/logs",
    }
)


@pytest.fixture(scope="session")
def dag_bag() -> Iterator[DagBag]:
    """Every DAG of dags/, parsed as the dag-processor parses them."""
    from airflow.dag_processing.dagbag import BundleDagBag

    yield BundleDagBag(dag_folder=ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags-folder")
    _home.cleanup()


@pytest.fixture(scope="session")
def airflow_database(dag_bag: DagBag) -> None:
    """Airflow's metadata database, migrated, with the DAGs in it."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db
    from airflow.utils.db import initdb

    initdb()
    DagBundlesManager().sync_bundles_to_db()
    sync_bag_to_db(dag_bag, "dags-folder", None)
