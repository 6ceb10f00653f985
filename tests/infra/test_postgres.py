"""The private Postgres server: kept across restarts and crashes, clear about damage, closed to others."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from infra.embedded import binaries, cluster_data, postgres, processes, state
from infra.embedded.errors import StackError
from infra.postgres.setup import EHR_ROLES, administer, bootstrap, role_name
from ml.common.files import read_json, write_json
from ml.settings import Role

ROOT = os.geteuid() == 0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A state directory of its own; whatever runs there is ended."""
    place = tmp_path / "home"
    yield place
    postgres.remove(place)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory whose server was used and stopped; tests that damage it put it right again."""
    place = tmp_path_factory.mktemp("used") / "home"
    _write(postgres.start(place, throwaway=True))
    postgres.stop(place)
    yield place
    postgres.remove(place)


def _write(cluster: postgres.Cluster) -> None:
    with administer(cluster.dsn()) as connection, connection.cursor() as cursor:
        cursor.execute("create table kept as select 7 as number")


def _read(cluster: postgres.Cluster) -> int:
    with administer(cluster.dsn()) as connection, connection.cursor() as cursor:
        cursor.execute("select number from kept")
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def _data(home: Path) -> Path:
    return Path(read_json(home / "postgres.json")["root"]) / "data"


def test_a_second_start_finds_the_server_of_the_first(home: Path) -> None:
    first = postgres.start(home, throwaway=True)
    leader = postgres.pid(home)
    _write(first)
    assert postgres.start(home, throwaway=True) == first
    assert postgres.pid(home) == leader
    assert _read(first) == 7


def test_a_restart_keeps_data_port_and_password_and_a_stop_leaves_no_process(used: Path) -> None:
    port = read_json(used / "ports.json")["postgres"]
    cluster = postgres.start(used, throwaway=True)
    assert cluster.port == port
    assert _read(cluster) == 7
    members = postgres.members(used)
    assert len(members) > 3
    postgres.stop(used)
    assert postgres.pid(used) is None
    assert postgres.members(used) == [] == [process for process in members if processes.alive(process)]
    assert state.port_is_free(port)
    postgres.stop(used)  # once more is no fault


def test_a_killed_server_comes_back_with_what_was_committed(home: Path) -> None:
    cluster = postgres.start(home)
    _write(cluster)
    leader = postgres.pid(home)
    assert leader is not None
    os.kill(leader, signal.SIGKILL)
    assert processes.wait_until(lambda: postgres.pid(home) is None, 5)
    assert (cluster.data / "postmaster.pid").exists()
    assert _read(postgres.start(home)) == 7


def test_a_stale_pid_file_that_names_another_process_is_seen_through(used: Path) -> None:
    file = _data(used) / "postmaster.pid"
    file.write_text(f"{os.getpid()}\n{_data(used)}\n")
    assert postgres.pid(used) is None
    assert _read(postgres.start(used, throwaway=True)) == 7
    postgres.stop(used)


def _start_elsewhere(home: Path, *, throwaway: bool) -> subprocess.Popen[str]:
    """Another Python that starts the server, prints its port and ends."""
    code = "import sys; from pathlib import Path; from infra.embedded import postgres; "
    code += "print(postgres.start(Path(sys.argv[1]), throwaway=bool(sys.argv[2])).port)"
    command = [sys.executable, "-c", code, str(home), "yes" if throwaway else ""]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_starts_at_once_give_one_server_that_outlives_them(home: Path) -> None:
    starts = [_start_elsewhere(home, throwaway=False) for _ in range(2)]
    ports = {start.communicate(timeout=60)[0].strip() for start in starts}
    assert [start.returncode for start in starts] == [0, 0]
    assert ports == {str(read_json(home / "ports.json")["postgres"])}
    members = {process.pid: process.ppid() for process in postgres.members(home)}
    assert [pid for pid, parent in members.items() if parent not in members] == [postgres.pid(home)]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel offers this on Linux alone")
def test_a_server_for_tests_ends_with_the_process_that_started_it(home: Path) -> None:
    assert _start_elsewhere(home, throwaway=True).communicate(timeout=60)[0]
    assert processes.wait_until(lambda: postgres.members(home) == [], 10)


def test_what_a_killed_test_session_left_in_memory_is_removed_and_a_living_ones_is_not(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_data, "MEMORY", tmp_path)
    monkeypatch.setattr(cluster_data, "has_room", lambda directory: True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, living = tmp_path / f"vigil-0-0-p{dead.pid}", tmp_path / f"vigil-0-0-p{os.getpid()}"
    for directory in (left, living):
        directory.mkdir()
    root, _ = cluster_data.place(state.prepare(home), throwaway=True)
    assert root.parent == tmp_path
    assert (left.exists(), living.exists()) == (False, True)


def test_it_listens_on_127_0_0_1_alone_and_no_socket_file_is_made(used: Path) -> None:
    cluster = postgres.start(used, throwaway=True)
    leader = psutil.Process(postgres.pid(used))
    assert [(c.laddr.ip, c.laddr.port) for c in leader.net_connections("inet") if c.status == psutil.CONN_LISTEN] == [
        ("127.0.0.1", cluster.port)
    ]
    assert [c for c in leader.net_connections("unix") if c.laddr] == []
    postgres.stop(used)


def test_secrets_are_for_the_owner_alone_and_no_login_goes_without_one(used: Path) -> None:
    assert stat.S_IMODE((used / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(used.stat().st_mode) == 0o700
    assert stat.S_IMODE(_data(used).stat().st_mode) == 0o700
    cluster = postgres.start(used, throwaway=True)
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        psycopg2.connect(
            f"host=127.0.0.1 port={cluster.port} user={cluster_data.ADMIN} dbname=postgres passfile=/dev/null"
        )
    leader = psutil.Process(postgres.pid(used))
    assert cluster.password not in " ".join(leader.cmdline())
    assert cluster.password not in repr(cluster)
    rules = [line.split() for line in (_data(used) / "pg_hba.conf").read_text().splitlines() if line.strip()]
    assert {words[-1] for words in rules if not words[0].startswith("#")} == {"scram-sha-256"}
    postgres.stop(used)


def test_a_failing_statement_leaves_no_value_in_the_log(used: Path) -> None:
    cluster = postgres.start(used, throwaway=True)
    with administer(cluster.dsn()) as connection, connection.cursor() as cursor:
        cursor.execute("create temp table t (a text primary key)")
        cursor.execute("insert into t values ('canary-4711')")
        with pytest.raises(psycopg2.IntegrityError, match="canary-4711"):
            cursor.execute("insert into t values ('canary-4711')")
    postgres.stop(used)
    text = cluster.log.read_text()
    assert "duplicate key" in text
    assert "canary-4711" not in text


def test_a_kept_port_that_somebody_else_took_is_named_with_its_owner(used: Path) -> None:
    port = read_json(used / "ports.json")["postgres"]
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(StackError, match=f"port {port} of postgres is in use \\(process {os.getpid()}, ") as caught:
            postgres.start(used, throwaway=True)
        assert str(used / "ports.json") in caught.value.remedy
    assert _read(postgres.start(used, throwaway=True)) == 7
    postgres.stop(used)


def test_a_port_written_by_hand_is_taken(used: Path) -> None:
    before, port = read_json(used / "ports.json"), state.free_port()
    write_json(used / "ports.json", {"postgres": port})
    assert postgres.start(used, throwaway=True).port == port
    postgres.stop(used)
    write_json(used / "ports.json", before)


def _garbage(path: Path) -> None:
    path.write_text("{not json")


def _replace(path: Path, text: str) -> None:
    owner = path.stat()
    path.write_text(text)
    os.chown(path, owner.st_uid, owner.st_gid)


def _control(home: Path) -> Path:
    return _data(home) / "global" / "pg_control"


def _secrets(home: Path) -> Path:
    return home / "secrets.json"


def _ports(home: Path) -> Path:
    return home / "ports.json"


def _place(home: Path) -> Path:
    return home / "postgres.json"


def _version(home: Path) -> Path:
    return _data(home) / "PG_VERSION"


# What is harmed, how, and what the error says.
DAMAGES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str]] = {
    "no password file": (_secrets, Path.unlink, "secrets.json is missing, though a database exists"),
    "garbage passwords": (_secrets, _garbage, "secrets.json is damaged"),
    "another password": (
        _secrets,
        lambda p: write_json(p, {"postgres": "x"}, 0o600),
        "refuses the password in .*",
    ),
    "garbage ports": (_ports, _garbage, "ports.json is damaged"),
    "impossible port": (_ports, lambda p: write_json(p, {"postgres": 0}), "ports.json is damaged"),
    "garbage place": (_place, _garbage, "postgres.json is damaged"),
    "empty place": (_place, lambda p: write_json(p, {}), "postgres.json is damaged"),
    "no data": (_data, shutil.rmtree, "data is missing"),
    "older data": (_version, lambda p: _replace(p, "15\n"), "was made by PostgreSQL 15, the installed one is"),
    "no control file": (_control, Path.unlink, "is not a whole Postgres database"),
    "garbage control file": (_control, lambda p: _replace(p, "x" * 8192), "Postgres does not start"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_directory_gets_a_clear_error_and_nothing_is_destroyed(used: Path, damage: str) -> None:
    locate, harm, message = DAMAGES[damage]
    victim = locate(used)
    backup = victim.with_name(f"{victim.name}.backup")
    owner = victim.stat()
    (shutil.copytree if victim.is_dir() else shutil.copy2)(victim, backup)
    harm(victim)
    before = _listing(used)
    try:
        with pytest.raises(StackError, match=message) as caught:
            postgres.start(used, throwaway=True)
        assert caught.value.remedy
        assert "\n" not in str(caught.value)
        assert before <= _listing(used)
    finally:
        _restore(backup, victim, owner)
    assert _read(postgres.start(used, throwaway=True)) == 7
    postgres.stop(used)


def _restore(backup: Path, victim: Path, owner: os.stat_result) -> None:
    if victim.is_dir():
        shutil.rmtree(victim)
    backup.replace(victim)
    for path in (victim, *victim.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


def _listing(home: Path) -> set[Path]:
    """Files that hold state."""
    fingerprint = cluster_data.fingerprint(home)
    roots = [*Path("/dev/shm").glob(f"vigil-{fingerprint}-*"), *Path("/var/tmp").glob(f"vigil-{fingerprint}-*"), home]
    return {path for root in roots for pattern in ("*.json", "data/base/*/[0-9]*") for path in root.glob(pattern)}


def test_an_initialisation_that_was_killed_is_done_again(home: Path) -> None:
    state.prepare(home)
    root, initialised = cluster_data.place(home, throwaway=True)
    assert not initialised
    (root / "new-dead" / "data").mkdir(parents=True)
    who = binaries.account()
    os.chown(root, who.uid, who.gid)
    cluster = postgres.start(home, throwaway=True)
    assert cluster.root == root
    assert list(root.glob("new-*")) == []


@pytest.mark.skipif(not ROOT, reason="not root: every other test of this file shows the server without root")
def test_root_runs_the_server_as_nobody_where_nobody_else_can_look(used: Path) -> None:
    postgres.start(used, throwaway=True)
    nobody = pwd.getpwnam("nobody").pw_uid
    assert _owners(used) == {nobody}
    assert _data(used).stat().st_uid == nobody
    postgres.stop(used)


@pytest.mark.skipif(not ROOT, reason="not root: every other test of this file shows the server without root")
def test_a_user_who_is_not_root_starts_and_stops_his_own_server() -> None:
    nobody = pwd.getpwnam("nobody")
    memory = Path("/dev/shm")
    place = (memory if memory.is_dir() else Path("/tmp")) / f"vigil-user-{os.getpid()}"
    place.mkdir(mode=0o700)
    os.chown(place, nobody.pw_uid, nobody.pw_gid)
    child = multiprocessing.get_context("fork").Process(target=_as_user, args=(nobody.pw_uid, nobody.pw_gid, place))
    try:
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert (place / "real" / "home" / "postgres" / "data" / "PG_VERSION").exists()
        assert (place / "real" / "home" / "postgres").stat().st_uid == nobody.pw_uid
    finally:
        child.kill()
        shutil.rmtree(place)


def _owners(home: Path) -> set[int]:
    owners = set()
    for process in postgres.members(home):
        with contextlib.suppress(psutil.NoSuchProcess):  # Postgres' own workers come and go
            uids = process.uids()
            owners |= {uids.real, uids.effective}
    return owners


def _as_user(uid: int, gid: int, place: Path) -> None:
    """Runs in a fork, because another user may not be able to start this very Python."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    (place / "real").mkdir()
    (place / "link").symlink_to(place / "real")
    home = place / "link" / "home"  # a path through a link is the same directory
    _write(postgres.start(home))
    postgres.stop(home)
    assert _read(postgres.start(home)) == 7
    assert _owners(home) == {uid}
    postgres.stop(home)
    assert postgres.members(home) == []


@pytest.mark.skipif(not ROOT, reason="not root: the server runs from the environment it is installed in")
def test_programs_that_nobody_cannot_reach_are_copied_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, closed = binaries.package(), tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = binaries.installation(original)
    shutil.copytree(installed, closed / original.name / installed.name, symlinks=True)
    shutil.copytree(original.with_name(f"{original.name}.libs"), closed / f"{original.name}.libs", symlinks=True)
    monkeypatch.setattr(binaries, "package", lambda: closed / original.name)
    target = Path("/var/tmp") / f"vigil-copy-{os.getpid()}"
    target.mkdir(mode=0o755)
    try:
        programs = binaries.binaries(binaries.account(), target)
        assert target in programs.parents
        assert binaries.account().run([programs / "initdb", "--version"]).returncode == 0
    finally:
        shutil.rmtree(target)


def test_an_administrator_without_superuser_can_bootstrap(home: Path) -> None:
    cluster = postgres.start(home, throwaway=True)
    with administer(cluster.dsn()) as admin, admin.cursor() as cursor:
        cursor.execute("create role dba login createdb createrole password 'dba'")
    dsns = {
        role: f"postgresql://{role_name(role)}:pw@127.0.0.1:{cluster.port}/{'e' if role in EHR_ROLES else 'v'}"
        for role in Role
    }
    for _ in range(2):
        bootstrap(cluster.dsn("postgres", "dba", "dba"), dsns, source_schema="mimiciv_hosp")
    with administer(dsns[Role.LOAD]) as connection, connection.cursor() as cursor:
        cursor.execute("create table mimiciv_hosp.patients as select 1 as subject_id")
    with administer(dsns[Role.EXTRACT]) as connection, connection.cursor() as cursor:
        cursor.execute("select * from mimiciv_hosp.patients")
        assert cursor.fetchall() == [(1,)]
