"""The file of a deployment's settings, its secrets, ports and lock, and what its daemons inherit."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from infra.embedded import environment, state
from infra.embedded.airflow_settings import airflow_environment
from infra.embedded.errors import StackError
from infra.embedded.launch import open_start
from infra.embedded.services import database_url, services
from infra.postgres.setup import EHR_ROLES
from ml.common.files import write_json
from ml.settings import Role, get_settings


def _open(home: Path, settings: dict[str, str] | None = None) -> dict[str, str]:
    """Read or make the files of a start; the settings."""
    return dict(open_start(state.prepare(home), settings or {}, lambda *_: None, 10.0).settings)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("VIGIL_")]:
        monkeypatch.delenv(name)


def test_a_new_deployment_has_every_connection_a_key_and_review_by_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _open(tmp_path / "home", {"VIGIL_HOSPITAL": "north", "VIGIL_TASKS": '["death"]'})
    monkeypatch.setenv("VIGIL_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    settings = get_settings()
    get_settings.cache_clear()
    assert (settings.hospital, settings.tasks) == ("north", ("death",))
    assert (settings.review, settings.embedded) == ("auto", True)
    assert settings.home == tmp_path / "home"
    assert settings.pseudonym_key is not None
    assert len(settings.pseudonym_key.get_secret_value()) == 64
    for role in Role:
        assert settings.dsn(role).startswith(f"postgresql://vigil_{role.value}:")
        assert settings.dsn(role).endswith("/ehr" if role in EHR_ROLES else "/vigil")


def test_secret_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    _open(tmp_path / "home")
    for name in ("vigil.env", "secrets.json"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o600


def test_no_two_secrets_are_equal_and_a_second_start_changes_none(tmp_path: Path) -> None:
    first = _open(tmp_path / "home", {"VIGIL_HOSPITAL": "north"})
    content = (tmp_path / "home" / "vigil.env").read_bytes()
    assert _open(tmp_path / "home", {"VIGIL_HOSPITAL": "south"}) == first
    assert (tmp_path / "home" / "vigil.env").read_bytes() == content
    values = [value for name, value in first.items() if name.endswith("_DSN")]
    assert len(set(values)) == len(Role)


def test_what_the_caller_set_at_the_first_start_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_REVIEW", "human")
    monkeypatch.setenv("VIGIL_DEMO_PATIENTS", "1000")
    monkeypatch.setenv("VIGIL_READ_DSN", "postgresql://elsewhere")
    monkeypatch.setenv("VIGIL_UNKNOWN", "1")
    _open(tmp_path / "home", {"VIGIL_DEMO_PATIENTS": "500"})
    for name in ("VIGIL_REVIEW", "VIGIL_DEMO_PATIENTS", "VIGIL_READ_DSN"):
        monkeypatch.delenv(name)
    again = _open(tmp_path / "home")
    assert (again["VIGIL_REVIEW"], again["VIGIL_DEMO_PATIENTS"]) == ("human", "1000")
    assert "elsewhere" not in again["VIGIL_READ_DSN"]
    assert "VIGIL_UNKNOWN" not in again


def test_a_line_changed_by_hand_stays_and_a_changed_port_reaches_the_connections(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _open(home)
    environment.update(home, {"VIGIL_REVIEW": "human", "VIGIL_CALENDAR_END": "2024-01-31"})
    write_json(home / "ports.json", {"postgres": 20_001, "mlflow": 20_002, "airflow": 20_003})
    again = _open(home)
    assert (again["VIGIL_REVIEW"], again["VIGIL_CALENDAR_END"]) == ("human", "2024-01-31")
    assert "@127.0.0.1:20001/" in again["VIGIL_READ_DSN"]
    assert again["VIGIL_AIRFLOW_URL"] == "http://127.0.0.1:20003"


def test_a_file_written_is_read_back_with_every_kind_of_value(tmp_path: Path) -> None:
    values = {"VIGIL_A": '["x", "y"]', "VIGIL_B": "a b#c", "VIGIL_C": "", "VIGIL_D": "postgresql://u:p@h:1/d?a=b"}
    environment.write(tmp_path / "vigil.env", values)
    assert environment.read(tmp_path / "vigil.env") == values
    (tmp_path / "vigil.env").write_text("# c\n\nVIGIL_A=plain # note\nVIGIL_B=\"quoted\"\nVIGIL_C='x' # note\n")
    assert environment.read(tmp_path / "vigil.env") == {"VIGIL_A": "plain", "VIGIL_B": "quoted", "VIGIL_C": "x"}
    with pytest.raises(StackError, match="VIGIL_A holds a quote"):
        environment.write(tmp_path / "vigil.env", {"VIGIL_A": "it's"})


@pytest.mark.parametrize("line", ["VIGIL_KEY='secret-half", "secret", "export VIGIL_A=secret", "\x00secret"])
def test_a_damaged_line_is_named_by_its_number_and_not_shown(tmp_path: Path, line: str) -> None:
    (tmp_path / "vigil.env").write_text(f"VIGIL_A='1'\n{line}\n")
    with pytest.raises(StackError, match="damaged in line 2") as caught:
        environment.read(tmp_path / "vigil.env")
    assert "secret" not in str(caught.value)


def test_settings_that_are_gone_though_a_database_exists_stop_the_start(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _open(home)
    write_json(home / "postgres.json", {"root": str(home / "postgres"), "initialised": True})
    (home / "vigil.env").unlink()
    with pytest.raises(StackError, match=r"vigil\.env is missing, though a database exists"):
        _open(home)
    assert not (home / "vigil.env").exists()


def test_a_daemon_inherits_the_callers_settings_and_no_other_deployments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_THREADS", "1")
    monkeypatch.setenv("VIGIL_HOME", "relative")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "OtherExecutor")
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    monkeypatch.setenv("PGPASSWORD", "elsewhere")
    found = environment.daemon_environment(tmp_path, {"MORE": "1"})
    assert (found["VIGIL_THREADS"], found["VIGIL_HOME"], found["MORE"]) == ("1", str(tmp_path), "1")
    assert [name for name in found if name.startswith(("AIRFLOW", "PG")) or name == "MLFLOW_TRACKING_URI"] == []


def test_no_secret_is_on_a_command_line_or_in_a_representation(tmp_path: Path) -> None:
    run = open_start(state.prepare(tmp_path / "home"), {}, lambda *_: None, 10.0)
    found = services(run.home, tmp_path, run.ports, run.secrets)
    shown = " ".join([*(part for service in found for part in service.command), repr(found)])
    assert not [name for name, secret in run.secrets.items() if secret in shown]


def test_airflows_servers_listen_on_127_0_0_1_with_secrets_of_their_own(tmp_path: Path) -> None:
    secrets = {name: name * 8 for name in ("airflow_jwt", "airflow_secret_key", "airflow_fernet")}
    found = airflow_environment(tmp_path, tmp_path, "postgresql://x", 20_000, secrets)
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert len(found["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64
    three = {found[f"AIRFLOW__{name}"] for name in ("API__SECRET_KEY", "API_AUTH__JWT_SECRET", "CORE__FERNET_KEY")}
    assert len(three) == 3


def test_the_lock_makes_a_second_start_wait_and_says_so_when_it_waits_too_long(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with state.locked(tmp_path):
            order.append("second")

    with state.locked(tmp_path):
        waiting = threading.Thread(target=second)
        waiting.start()
        time.sleep(0.3)
        order.append("first")
        with pytest.raises(StackError, match="still at work after 0 s"), state.locked(tmp_path, seconds=0.0):
            pass
    waiting.join(5)
    assert order == ["first", "second"]


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="cannot be used"):
        state.prepare(tmp_path / "file" / "home")


def test_the_url_of_a_database_names_its_role(tmp_path: Path) -> None:
    assert database_url(5, "mlflow", {"postgres_mlflow": "pw"}) == "postgresql://mlflow:pw@127.0.0.1:5/mlflow"


def test_a_state_directory_is_closed_to_others_unless_others_use_it(tmp_path: Path) -> None:
    for name, expected in (("data", 0o700), ("thesis.txt", 0o755)):
        home = tmp_path / f"home-of-{name}"
        home.mkdir(mode=0o755)
        (home / name).mkdir()
        state.prepare(home)
        assert stat.S_IMODE(home.stat().st_mode) == expected
