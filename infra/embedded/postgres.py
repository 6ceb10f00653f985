"""A private PostgreSQL server: scram passwords, TCP on 127.0.0.1, a port that is kept, no unix socket."""

from __future__ import annotations

import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg2
from psycopg2.extensions import make_dsn

from infra.embedded import processes, state
from infra.embedded.binaries import CLEAN_ENV, Account, account
from infra.embedded.cluster_data import ADMIN, MEMORY, OUTSIDE, fingerprint, has_room, initialise, place
from infra.embedded.errors import StackError

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # What fails may hold a patient's values: no statement, no DETAIL line in the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}
_UNSAFE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",  # inside the data directory, so that a killed server leaves nothing behind
}


@dataclass(frozen=True)
class Cluster:
    """A running server.

    Attributes:
        root: directory of the cluster; ``data`` lies in it.
        port: on 127.0.0.1.
        password: of the superuser ``vigil_admin``.
        log: file of the server's messages.
    """

    root: Path
    port: int
    password: str = field(repr=False)
    log: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    def dsn(self, database: str = "postgres", user: str = ADMIN, password: str | None = None) -> str:
        """A libpq connection string; by default the superuser's."""
        secret = self.password if password is None else password
        return make_dsn(host="127.0.0.1", port=self.port, dbname=database, user=user, password=secret)


def start(home: Path, *, throwaway: bool = False) -> Cluster:
    """Start the server of a state directory, made on the first call; return at once where it runs.

    Args:
        throwaway: for tests: no fsync, data in memory where there is room for them (copying a database is ten times
            as fast there), and the server ends with the process that started it.

    Raises:
        StackError: the port is taken, the state is damaged, or the server does not start. Nothing is destroyed.
    """
    home = state.prepare(home)
    with state.locked(home, "postgres"):
        root, initialised = place(home, throwaway)
        secrets = state.load_secrets(home, ("postgres",), initialised=initialised)
        port = state.load_ports(home, ("postgres",))["postgres"]
        cluster = Cluster(root, port, secrets["postgres"], home / "logs" / "postgres.log")
        who = account()
        launched, offset = None, 0
        if _postmaster(cluster.data) is None:
            state.require_port(home, "postgres", port)
            processes.rotate(cluster.log)
            programs = initialise(home, root, cluster.password, who, initialised)
            _clear_stale(cluster.data)
            offset = processes.log_size(cluster.log)
            launched = _launch(cluster, programs, who, throwaway)
        try:
            _answer(cluster, home, launched, offset)
        except BaseException:
            if launched:
                _stop(cluster.data)
            raise
    return cluster


def stop(home: Path) -> None:
    """Stop the server of a state directory; do nothing where none runs.

    Raises:
        StackError: a process does not end.
    """
    home = home.absolute()
    known = state.read_object(home / "postgres.json")
    if known is not None:
        with state.locked(home, "postgres"):
            _stop(Path(str(known.get("root"))) / "data")


def _stop(data: Path) -> None:
    for number, seconds in ((signal.SIGINT, 30.0), (signal.SIGQUIT, 5.0)):
        leader = _postmaster(data)
        if leader is None:
            break
        processes.signal_all([leader], number)  # fast shutdown: open transactions are rolled back
        processes.wait_gone([leader], seconds)
    left = processes.wait_gone(_processes(data), 5.0)
    processes.signal_all(left, signal.SIGKILL)
    if processes.wait_gone(left, 5.0):
        raise StackError(f"the Postgres server of {data} does not end", "look at it with ps, end it by hand")


def remove(home: Path) -> None:
    """Stop the server and delete its data, wherever they lie, what a removed directory of this name left included.

    Raises:
        StackError: a process does not end.
    """
    home = home.absolute()
    known = state.read_object(home / "postgres.json") or {}
    roots = {
        home / "postgres",
        *MEMORY.glob(f"vigil-{fingerprint(home)}-*"),
        *OUTSIDE.glob(f"vigil-{fingerprint(home)}-*"),
    }
    roots |= {Path(known["root"])} if isinstance(known.get("root"), str) else set()
    for root in sorted(root for root in roots if root.is_dir() and root.stat().st_uid == account().uid):
        _stop(root / "data")
        shutil.rmtree(root)
    (home / "postgres.json").unlink(missing_ok=True)


def pid(home: Path) -> int | None:
    """Process id of the running server, or None."""
    known = state.read_object(home.absolute() / "postgres.json")
    found = _postmaster(Path(str(known.get("root"))) / "data") if known else None
    return found.pid if found else None


def members(home: Path) -> list[psutil.Process]:
    """Every process of the server."""
    known = state.read_object(home.absolute() / "postgres.json")
    return _processes(Path(str(known.get("root"))) / "data") if known else []


def _processes(data: Path) -> list[psutil.Process]:
    """Processes whose working directory is the data directory: the server and its backends, orphaned ones too."""
    where, found = str(data.resolve()), []
    for process in psutil.process_iter():
        try:
            if process.cwd() == where and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _postmaster(data: Path) -> psutil.Process | None:
    """The running server, by its own pid file; a reused pid is not taken for it."""
    processes.reap()
    try:
        number = int((data / "postmaster.pid").read_text().splitlines()[0])
        process = psutil.Process(number)
        alive = process.cwd() == str(data.resolve()) and process.status() != psutil.STATUS_ZOMBIE
        return process if alive else None
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def _clear_stale(data: Path) -> None:
    """After a crash: see backends off, then remove the pid file, whose number may belong to another process by now."""
    left = processes.wait_gone(_processes(data), 5.0)
    for process in left:
        process.kill()
    processes.wait_gone(left, 5.0)
    (data / "postmaster.pid").unlink(missing_ok=True)


def _launch(cluster: Cluster, programs: Path, who: Account, throwaway: bool) -> processes.Daemon:
    options = _OPTIONS | {"port": str(cluster.port)}
    if not has_room(MEMORY):  # containers often have 64 MB there, too little for a parallel query
        options |= {"dynamic_shared_memory_type": "mmap"}
    options |= _UNSAFE if throwaway else {}
    command: list[str | Path] = [programs / "postgres", "-D", cluster.data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    return processes.spawn(command, cluster.log, CLEAN_ENV, user=who.user, die_with_parent=throwaway)


def _answer(cluster: Cluster, home: Path, launched: processes.Daemon | None, offset: int) -> None:
    """Wait until the server takes our password.

    Args:
        launched: the server where this call started it.
        offset: length of the log before.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            psycopg2.connect(cluster.dsn(), connect_timeout=5).close()
            return
        except psycopg2.OperationalError as error:
            reason = str(error)
        if "password authentication failed" in reason:
            raise StackError(
                f"Postgres refuses the password in {home / 'secrets.json'}",
                "restore that file from a backup, or begin anew with 'vigil stack clean'",
            )
        if launched and launched.process() is None:
            break
        time.sleep(0.03)
    raise StackError(f"Postgres does not start ({processes.last_error(cluster.log, offset)})", f"see {cluster.log}")
