"""The whole stack: starts, answers, stops without a trace, and finds everything again."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner

from infra.airflow.api import AirflowApi, AirflowError, ConflictError
from infra.embedded import cluster_data, launch, postgres, processes, stack, state
from infra.embedded.commands import app
from infra.embedded.errors import StackError
from infra.embedded.services import Service
from ml.common.errors import NotFoundError
from ml.common.files import write_json
from ml.settings import get_settings

DAY = datetime(2024, 1, 1, tzinfo=UTC)
DAGS = """
import subprocess
import sys
import time

import pendulum
from airflow.sdk import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2020, 1, 1, tz="UTC"))
def short():
    @task
    def settings():
        from ml.settings import get_settings

        return get_settings().hospital

    @task(pool="gpu")
    def refused():
        from ml.common.errors import SourceError

        raise SourceError("the source is shut", "open it")

    settings()
    refused()


@dag(schedule=None, start_date=pendulum.datetime(2020, 1, 1, tz="UTC"))
def endless():
    @task
    def wait():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(601)"], start_new_session=True)
        time.sleep(600)

    wait()


short()
endless()
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "home"
    monkeypatch.setenv("VIGIL_HOME", str(place))
    get_settings.cache_clear()
    yield place
    if (place / "ports.json").exists():
        stack.clean(place)
    get_settings.cache_clear()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A checkout with two DAGs and a file that does not import."""
    place = tmp_path / "repository"
    for folder in ("dags", "plugins"):
        (place / folder).mkdir(parents=True)
    (place / "dags" / "good.py").write_text(DAGS)
    (place / "dags" / "bad.py").write_text("from airflow.sdk import dag\nraise ValueError('not today')\n")
    return place


def _members(found: stack.Status) -> list[psutil.Process]:
    """Every process of the servers."""
    leaders = [psutil.Process(service.pid) for service in found.services if service.pid]
    return [process for leader in leaders for process in (leader, *leader.children(recursive=True))]


def _finish(api: AirflowApi, dag_id: str, run_id: str) -> str:
    ended = ("success", "failed")
    assert processes.wait_until(lambda: api.dag_run(dag_id, run_id)["state"] in ended, 90, every=0.5)
    return str(api.dag_run(dag_id, run_id)["state"])


def _experiments(url: str | None) -> list[str]:
    answer = httpx.post(f"{url}/api/2.0/mlflow/experiments/search", json={"max_results": 10})
    return [experiment["name"] for experiment in answer.json()["experiments"]]


@pytest.mark.slow  # the nights of tests/e2e stop and start the stack as well
@pytest.mark.e2e
def test_the_stack_starts_stops_without_a_trace_and_finds_everything_again(home: Path, repository: Path) -> None:
    told: list[tuple[str, str]] = []
    found = stack.start(
        home, {"VIGIL_HOSPITAL": "north"}, repository=repository, tell=lambda name, word, _: told.append((name, word))
    )
    assert found.healthy
    assert next(name for name, word in told if word == "ready") == "postgres"
    assert {name for name, word in told if word == "ready"} >= {service.name for service in found.services}
    first = {service.name: service.pid for service in found.services}

    _airflow_works(AirflowApi(found.url("airflow-api-server") or ""))
    mlflow = found.url("mlflow")
    assert httpx.post(f"{mlflow}/api/2.0/mlflow/experiments/create", json={"name": "kept"}).is_success
    artifact = httpx.put(f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/0/note.txt", content=b"kept")
    assert artifact.is_success
    assert {s.name: s.pid for s in stack.start(home, repository=repository).services} == first  # a start too many
    _status_tells(first)

    members = _members(found)
    leftover = [p for p in processes.marked(home) if "time.sleep(601)" in " ".join(p.cmdline())]
    assert len(leftover) == 1  # the process that a task started in a session of its own
    stack.stop(home, repository=repository)
    assert [process for process in [*members, *leftover] if processes.alive(process)] == []
    assert processes.marked(home) == []
    assert not stack.status(home, repository=repository).running

    again = stack.start(home, {"VIGIL_HOSPITAL": "south"}, repository=repository)
    assert again.healthy
    assert [service.url for service in again.services] == [service.url for service in found.services]
    assert _experiments(mlflow) == ["kept", "Default"]
    assert (home / "mlflow" / "0" / "note.txt").read_bytes() == b"kept"
    assert AirflowApi(again.url("airflow-api-server") or "").dag_run("short", "r1")["state"] == "failed"
    assert get_settings().hospital == "north"

    root = cluster_data.place(home, False)[0]
    assert CliRunner().invoke(app, ["clean", "--yes"]).exit_code == 0
    assert not home.exists()
    assert not root.exists()


def _airflow_works(api: AirflowApi) -> None:
    """The REST helper against the real server, and a task that still runs when it returns."""
    assert api.pools() == {"default_pool": 128, "gpu": 1}
    api.wait_for_dags({"short", "endless"})
    with pytest.raises(AirflowError, match=r"bad\.py does not import \(ValueError: not today\)"):
        api.wait_for_dags({"short", "absent"})
    for dag_id in ("short", "endless"):
        api.unpause(dag_id)
    run = api.trigger("short", "r1", DAY, DAY, DAY + timedelta(days=1), {"why": "test"})
    assert (run["conf"], run["data_interval_end"]) == ({"why": "test"}, "2024-01-02T00:00:00Z")
    assert api.trigger("short", "r1", DAY)["run_after"] == run["run_after"]  # the same run, not a second one
    with pytest.raises(ConflictError):
        api.trigger("short", "r2", DAY)
    with pytest.raises(NotFoundError, match="r2"):
        api.dag_run("short", "r2")
    api.trigger("endless", "r1", DAY)
    assert _finish(api, "short", "r1") == "failed"
    states = {task["task_id"]: task["state"] for task in api.task_instances("short", "r1")}
    assert states == {"settings": "success", "refused": "failed"}
    assert api.failure("short", "r1", "refused") == "SourceError: the source is shut: open it"
    assert "Done. Returned value was: north" in api.logs("short", "r1", "settings", 1)
    api.clear("short", "r1")
    assert api.dag_run("short", "r1")["state"] in ("queued", "running")
    assert _finish(api, "short", "r1") == "failed"
    tries = {task["task_id"]: task["try_number"] for task in api.task_instances("short", "r1")}
    assert tries == {"settings": 1, "refused": 2}
    assert [run["dag_run_id"] for run in api.dag_runs("short")] == ["r1"]
    running = lambda: [task["state"] for task in api.task_instances("endless", "r1")] == ["running"]  # noqa: E731
    assert processes.wait_until(running, 60)
    time.sleep(2)


def _status_tells(pids: dict[str, int | None]) -> None:
    shown = CliRunner().invoke(app, ["status", "--json"])
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert report["healthy"] is True
    assert {service["name"]: service["pid"] for service in report["services"]} == pids
    assert all(service["memory"] > 1_000_000 for service in report["services"])
    assert "✓" in CliRunner().invoke(app, ["status"]).stdout


def test_a_start_that_fails_names_the_port_and_leaves_no_process(home: Path, repository: Path) -> None:
    state.prepare(home)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write_json(home / "ports.json", {"mlflow": port})
        with pytest.raises(StackError, match=f"port {port} of mlflow is in use"):
            stack.start(home, repository=repository)
    assert postgres.members(home) == []
    assert processes.marked(home) == []
    assert CliRunner().invoke(app, ["status"]).exit_code == 1


def _service(home: Path, code: str) -> Service:
    return Service("broken", home, (sys.executable, "-c", code), {}, f"http://127.0.0.1:{state.free_port()}/health")


def test_a_server_that_dies_while_it_starts_is_named_with_its_log_and_last_error(home: Path) -> None:
    run = launch.open_start(state.prepare(home), {}, lambda *_: None, 20.0)
    broken = _service(home, "print('fine', flush=True); raise ValueError('no such thing')")
    with pytest.raises(StackError, match=r"broken ended while it started \(ValueError: no such thing\)") as caught:
        launch._start_one(run, broken)
    assert caught.value.remedy == f"see {home / 'logs' / 'broken.log'}"


def test_a_server_that_never_answers_is_given_up(home: Path) -> None:
    run = launch.open_start(state.prepare(home), {}, lambda *_: None, 1.0)
    silent = _service(home, "import time; time.sleep(60)")
    with pytest.raises(StackError, match="broken is not healthy in time"):
        launch._start_one(run, silent)
    daemon = silent.daemon()
    assert daemon is not None
    processes.stop([daemon], home)


def test_a_stack_that_was_never_started_is_said_to_be_so(home: Path) -> None:
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 1
    assert "no stack was ever started" in shown.stdout
    stack.stop(home)
    assert not home.exists()


def test_cleaning_deletes_what_is_vigils_and_refuses_other_directories(home: Path) -> None:
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    with pytest.raises(StackError, match="holds no state of Vigil"):
        stack.clean(home)
    (home / "data").mkdir()
    (home / "ports.json").write_text("{broken")
    stack.clean(home)
    assert [path.name for path in home.iterdir()] == ["thesis.txt"]


def test_an_airflow_that_is_not_there_is_said_to_be_so() -> None:
    with pytest.raises(AirflowError, match=r"does not answer \(ConnectError\)"):
        AirflowApi(f"http://127.0.0.1:{state.free_port()}").health()
