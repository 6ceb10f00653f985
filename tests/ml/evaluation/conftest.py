"""A deployment that needs no database, and a run on the invented hospital."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml.cohorts.labels import make_labels
from ml.cohorts.runs import TrainingRun, open_run
from ml.settings import Settings, get_settings
from tests.ml.evaluation.invented_hospital import AS_OF, answer, commit, invented_events


def set_place(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Settings of a deployment that needs no database: two tasks, three index days, few draws."""
    patch.setenv("VIGIL_HOME", str(home))
    patch.setenv("VIGIL_TASKS", '["heart_failure", "death"]')
    patch.setenv("VIGIL_INDEX_DAYS", "3")
    patch.setenv("VIGIL_BOOTSTRAP", "100")
    patch.setenv("VIGIL_SHARDS", "2")
    patch.setenv("VIGIL_THREADS", "1")
    get_settings.cache_clear()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A fresh deployment."""
    set_place(monkeypatch, tmp_path / "vigil")
    yield get_settings()
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State directory with the hospital's log, labels and an invented Med-BERT; each test copies it."""
    home = tmp_path_factory.mktemp("hospital") / "vigil"
    with pytest.MonkeyPatch.context() as patch:
        set_place(patch, home)
        commit(invented_events(800))
        found = open_run(AS_OF)
        make_labels(found)
        answer(found, "medbert", noise=1.0)
    get_settings.cache_clear()
    return home


@pytest.fixture
def run(place: Settings, hospital: Path) -> TrainingRun:
    """A run with labels and the answers of an invented Med-BERT."""
    shutil.copytree(hospital, place.home)
    return open_run(AS_OF)
