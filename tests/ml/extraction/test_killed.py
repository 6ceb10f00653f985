"""Killed with SIGKILL at random points, the night's first steps are completed by the next try, to the same digest."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ml.common.files import sha256_file
from ml.extraction import load_snapshot
from ml.extraction.log import attempts, committed_partition, committed_partitions, log_directory, snapshot_path
from ml.settings import Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE

DAYS = [BASE, BASE + timedelta(days=1)]
HOSPITALS = 3  # logs that are begun; each of their nights is killed twice
processes = multiprocessing.get_context("forkserver")  # quick, and no thread of this process is copied
processes.set_forkserver_preload(["ml.extraction.night", "ml.extraction.stream", "tests.ml.small_hospital"])


@pytest.fixture
def small(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    hospital.build()
    with hospital.together():
        for key in range(2000, 2400):
            hospital.add_condition(key, 2 + key % 10, date(2024, 1, 5), 102, recorded=BASE)
            hospital.add_condition(key, 3 + key % 10, date(2024, 1, 5), 102, recorded=DAYS[1])
    monkeypatch.setenv("VIGIL_BATCH_ROWS", "16")  # many small batches: many points to die at
    get_settings.cache_clear()
    return get_settings()


def _night(day: date, settings: dict[str, str], tell: Connection) -> None:
    os.environ.update(settings)
    get_settings.cache_clear()
    tell.send("begins")
    began = time.monotonic()
    hospital.night(day)
    tell.send(time.monotonic() - began)


@dataclass(frozen=True)
class Night:
    """A night in a process of its own."""

    process: multiprocessing.process.BaseProcess
    hear: Connection


def _start(day: date) -> Night:
    """A night that has begun."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("VIGIL_")}
    hear, tell = processes.Pipe(duplex=False)
    process = processes.Process(target=_night, args=(day, settings, tell))
    process.start()
    tell.close()
    assert hear.recv() == "begins"
    return Night(process, hear)


def test_killed_at_random_points_a_night_ends_with_the_same_digest(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_data(monkeypatch, tmp_path / "whole")
    truth = {day: _finish(day) for day in DAYS}
    chance, died_at_work, left_behind = random.Random(3), 0, 0
    for number in range(HOSPITALS):
        _put_data(monkeypatch, tmp_path / str(number))
        for day, (digest, seconds) in truth.items():
            for _ in range(2):
                night = _start(day)
                time.sleep(chance.uniform(0, seconds))
                night.process.kill()
                night.process.join()
                died_at_work += night.process.exitcode == -9
                left_behind += len(attempts(day)) > 0 and committed_partition(day) is None
                _check_whole()
            assert hospital.night(day).digest == digest
            committed = committed_partition(day)
            assert committed is not None
            assert attempts(day) == [committed.path], "what the dead left is cleared away"
    assert died_at_work >= HOSPITALS, "too few died at work to say anything"
    assert left_behind >= 2, "none died half-way"


def _put_data(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("VIGIL_DATA", str(place))
    get_settings.cache_clear()


def _finish(day: date) -> tuple[str, float]:
    """Digest of the day, and the seconds that its night took."""
    night = _start(day)
    seconds = night.hear.recv()
    night.process.join()
    return load_snapshot(day).digest, seconds


def _check_whole() -> None:
    """Whatever was there when it died: all that a manifest or snapshot names is whole."""
    for partition in committed_partitions():
        for name, record in partition.files.items():
            assert sha256_file(partition.path / name) == record.sha256
    for path in (log_directory() / "snapshots").glob("[0-9]*.json"):
        assert committed_partition(date.fromisoformat(path.stem)) is not None
        assert snapshot_path(date.fromisoformat(path.stem)).stat().st_size
