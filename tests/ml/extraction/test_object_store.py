"""The event log in an object store, on a real server that speaks S3."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ml.common.errors import RefusedError, SourceError
from ml.common.paths import is_local
from ml.extraction import commit_snapshot, extract, load_snapshot
from ml.extraction.lock import locked
from ml.extraction.log import attempts, committed_partition, log_directory, pending_path
from ml.quality import validate
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE, PEOPLE

NEXT = BASE + timedelta(days=1)
_buckets = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of an S3 server on this machine."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, and credentials where the libraries look for them."""
    credentials = {"AWS_ACCESS_KEY_ID": "vigil", "AWS_SECRET_ACCESS_KEY": "invented", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    name = f"log-{next(_buckets)}"
    boto3.client("s3", endpoint_url=server).create_bucket(Bucket=name)
    return name


@pytest.fixture
def in_store(vigil: Settings, server: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The small hospital, and a deployment whose log lies in the bucket."""
    hospital.build()
    _put_log(monkeypatch, f"s3://{bucket}/vigil/log", server)
    return get_settings()


def _put_log(monkeypatch: pytest.MonkeyPatch, place: str, endpoint: str) -> None:
    monkeypatch.setenv("VIGIL_EVENT_LOG", place)
    monkeypatch.setenv("VIGIL_S3_ENDPOINT", endpoint)
    get_settings.cache_clear()


def _night(day: date) -> Any:
    extract(day)
    validate(day)
    return commit_snapshot(day)


def test_nights_in_an_object_store_have_the_digests_of_nights_on_disk(
    in_store: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    hospital.add_condition(4, 4, date(2024, 1, 5), 102, recorded=NEXT)
    hospital.add_condition(905, 3, date(2031, 1, 1), 102, recorded=NEXT)  # set aside: it lies in the future
    stored = [_night(BASE), _night(NEXT)]
    assert not is_local(log_directory())
    assert load_snapshot(NEXT) == stored[1]
    assert hospital.codes_of(hospital.view(stored[1]), "condition_occurrence/4") == ["ICD10CM//E11.9"]
    assert hospital.codes_of(hospital.view(stored[1]), "condition_occurrence/905") == []
    monkeypatch.setenv("VIGIL_EVENT_LOG", str(tmp_path / "log"))
    get_settings.cache_clear()
    assert [_night(BASE).digest, _night(NEXT).digest] == [snapshot.digest for snapshot in stored]


def test_an_extraction_that_died_leaves_an_attempt_that_nothing_names_and_the_next_clears_it_away(
    in_store: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["ml.extraction.night"], "write_pending", die)
        with pytest.raises(KeyboardInterrupt):
            extract(BASE)
    assert not pending_path(BASE).exists()
    left = attempts(BASE)
    assert len(left) == 1
    snapshot = hospital.night(BASE)
    committed = committed_partition(BASE)
    assert committed is not None
    assert attempts(BASE) == [committed.path] != left
    assert snapshot.subjects == PEOPLE


def test_a_second_writer_is_refused_though_a_store_knows_no_locks(in_store: Settings) -> None:
    with locked("erase"), pytest.raises(RefusedError, match="another process is writing"):
        extract(BASE)
    assert extract(BASE).rows["death"] == 1


def test_a_writer_that_lost_its_lock_makes_nothing_visible(in_store: Settings) -> None:
    end_it = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted"
    with pytest.raises(RefusedError, match="lost the lock"), locked("extract") as still_locked:  # noqa: PT012
        still_locked()
        hospital.ask(Role.QUALITY, end_it)
        still_locked()
        pytest.fail("it went on without its lock")


def test_an_address_without_a_bucket_is_named(in_store: Settings, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _put_log(monkeypatch, "s3://no-such-bucket/log", server)
    with pytest.raises(SourceError, match="s3://no-such-bucket/log cannot be read or written"):
        extract(BASE)
