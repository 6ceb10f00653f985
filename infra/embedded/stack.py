"""Start, stop and look at the one-machine stack of a state directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.embedded import postgres, processes, state
from infra.embedded.errors import StackError
from infra.embedded.launch import Start, Tell, open_start, start_all, start_databases, take_back
from infra.embedded.services import PORTS, SECRETS, Service, services
from ml.settings import get_settings

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class ServiceStatus:
    """What is known of one server.

    Attributes:
        pid: of its leading process, None where it does not run.
        healthy: it answers.
        url: for a person's browser, or None.
        log: file of its messages.
        memory: proportional share of memory of all its processes, bytes.
    """

    name: str
    pid: int | None
    healthy: bool
    url: str | None
    log: str
    memory: int


@dataclass(frozen=True)
class Status:
    """The stack of one state directory."""

    home: str
    services: tuple[ServiceStatus, ...]

    @property
    def healthy(self) -> bool:
        """Every server answers."""
        return bool(self.services) and all(service.healthy for service in self.services)

    @property
    def running(self) -> bool:
        """At least one server runs."""
        return any(service.pid for service in self.services)

    def url(self, name: str) -> str | None:
        """Address of a server, None where it has none or the stack was never started."""
        return next((service.url for service in self.services if service.name == name), None)


def start(
    home: Path,
    settings: Mapping[str, str] | None = None,
    *,
    repository: Path = REPOSITORY,
    tell: Tell | None = None,
    timeout: float = 240.0,
) -> Status:
    """Start what does not run yet and wait until all of it is healthy. A second call while one works waits for it.

    Args:
        home: the state directory, made on the first start.
        settings: ``VIGIL_*`` settings of the hospital, kept from the first start on; later calls add what is new.
        repository: the checkout with ``dags`` and ``plugins``.
        tell: called with a server's name, ``starting`` or ``ready``, and seconds; from several threads.
        timeout: seconds for everything to become healthy.

    Raises:
        StackError: something does not start; what this call started is stopped again, nothing is deleted.
    """
    home = _run(home, settings, lambda run: start_all(run, repository), repository, tell, timeout)
    return status(home, repository=repository)


def start_database(home: Path, settings: Mapping[str, str] | None = None, *, tell: Tell | None = None) -> None:
    """Start Postgres alone, with roles, databases and migrations, so that a hospital can be loaded meanwhile.

    Raises:
        StackError: as ``start``.
    """
    _run(home, settings, start_databases, REPOSITORY, tell, 60.0)


def _run(
    home: Path,
    settings: Mapping[str, str] | None,
    work: Callable[[Start], None],
    repository: Path,
    tell: Tell | None,
    timeout: float,
) -> Path:
    """Do a start's work under the lock; take back what it began where it fails."""
    home = state.prepare(home)
    with state.locked(home, seconds=timeout + 60):
        run = open_start(home, settings or {}, tell or (lambda *_: None), timeout)
        try:
            work(run)
        except BaseException:
            take_back(run, repository)
            raise
    get_settings.cache_clear()
    return home


def stop(home: Path, *, repository: Path = REPOSITORY) -> None:
    """Stop every process of the stack, running tasks included; do nothing where none runs.

    Raises:
        StackError: a process does not end.
    """
    home = home.absolute()
    if not home.exists():
        return
    with state.locked(home):
        known = _services(home, repository)
        processes.stop([daemon for service in known if (daemon := service.daemon())], home)
        for service in known:
            service.pid_file.unlink(missing_ok=True)
        postgres.stop(home)


def status(home: Path, *, repository: Path = REPOSITORY) -> Status:
    """Look at the stack; empty where it was never started."""
    home = home.absolute()
    if not (home / "postgres.json").exists():
        return Status(str(home), ())
    found = [_postgres_status(home)]
    for service in _services(home, repository):
        daemon = service.daemon()
        members = processes.family(daemon) if daemon else []
        healthy = daemon is not None and service.healthy(daemon)
        pid = daemon.pid if daemon else None
        found.append(ServiceStatus(service.name, pid, healthy, service.url, str(service.log), memory(members)))
    return Status(str(home), tuple(found))


def clean(home: Path, *, repository: Path = REPOSITORY) -> None:
    """Stop the stack and delete its state: databases, models, event log, reports, secrets.

    Only what Vigil made is deleted; the directory itself goes where nothing else is in it.

    Raises:
        StackError: the directory is not Vigil's, or a process does not end.
    """
    home = home.absolute()
    if not home.exists():
        return
    if not any((home / name).exists() for name in state.FILES):
        raise StackError(f"{home} holds no state of Vigil", "nothing was deleted; name the right VIGIL_HOME")
    for broken in ("ports.json", "postgres.json"):
        try:
            state.read_object(home / broken)
        except StackError:
            (home / broken).unlink()  # the databases are found by the name of their directory as well
    with suppress(StackError):
        stop(home, repository=repository)
    processes.stop([], home)
    postgres.remove(home)
    for folder in state.FOLDERS:
        shutil.rmtree(home / folder, ignore_errors=True)
    for file in state.FILES:
        (home / file).unlink(missing_ok=True)
    with suppress(OSError):
        home.rmdir()


def memory(members: list[psutil.Process]) -> int:
    """Memory of processes in bytes, shared pages counted once (PSS where the system tells it, else resident)."""
    total = 0
    for process in members:
        with suppress(psutil.Error, OSError):
            info = process.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
    return total


def _services(home: Path, repository: Path) -> list[Service]:
    """The servers of a state directory that was started before; none where it never was."""
    ports, secrets = state.read_object(home / "ports.json"), state.read_object(home / "secrets.json")
    if ports is None or secrets is None or not set(PORTS) <= set(ports) or not set(SECRETS) <= set(secrets):
        return []
    return services(home, repository, ports, secrets)


def _postgres_status(home: Path) -> ServiceStatus:
    pid = postgres.pid(home)
    log = home / "logs" / "postgres.log"
    return ServiceStatus("postgres", pid, pid is not None, None, str(log), memory(postgres.members(home)))
