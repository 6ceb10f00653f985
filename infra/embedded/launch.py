"""The steps of a start: settings on disk, Postgres, then everything else at once."""

from __future__ import annotations

import importlib.metadata
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from infra.embedded import environment, postgres, processes, state
from infra.embedded.errors import StackError
from infra.embedded.services import AIRFLOW, DATABASES, MLFLOW, PORTS, SECRETS, Service, database_url, services
from infra.postgres.migrate import migrate
from infra.postgres.setup import EHR_ROLES, administer, bootstrap, create_database, create_roles, role_name
from ml.settings import Role

Tell = Callable[[str, str, float], None]


@dataclass
class Start:
    """One start: what it began, so that a failure can take it back, and whether to give up."""

    home: Path
    tell: Tell
    deadline: float
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    settings: Mapping[str, str]

    def __post_init__(self) -> None:
        self.began: list[str] = []
        self.failed = threading.Event()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell that something starts and when it is ready."""
        begin = time.monotonic()
        self.tell(name, "starting", 0.0)
        try:
            yield
        except BaseException:
            self.failed.set()
            raise
        if not self.failed.is_set():
            self.tell(name, "ready", time.monotonic() - begin)


def open_start(home: Path, settings: Mapping[str, str], tell: Tell, timeout: float) -> Start:
    """Read or make secrets, ports and ``vigil.env``, before anything is started."""
    initialised = bool((state.read_object(home / "postgres.json") or {}).get("initialised"))
    path = home / "vigil.env"
    if initialised and not path.exists():
        raise StackError(
            f"{path} is missing, though a database exists",
            "restore it from a backup, or begin anew with 'vigil stack clean'",
        )
    roles = [role.value for role in Role]
    names = ("postgres", *(f"postgres_{name}" for name in (*roles, *DATABASES)), *SECRETS)
    secrets = state.load_secrets(home, names, initialised=initialised)
    ports = state.load_ports(home, PORTS)
    known = environment.read(path)
    new = {"VIGIL_REVIEW": "auto", "VIGIL_PSEUDONYM_KEY": secrets["pseudonym_key"], **settings}
    new |= {} if known else environment.remembered()
    written = new | known | _generated(home, ports, secrets)
    environment.write(path, written)
    return Start(home, tell, time.monotonic() + timeout, ports, secrets, written)


def _generated(home: Path, ports: Mapping[str, int], secrets: Mapping[str, str]) -> dict[str, str]:
    """The lines of ``vigil.env`` that follow from secrets and ports."""
    lines = {
        "VIGIL_HOME": str(home),
        "VIGIL_EMBEDDED": "true",
        "VIGIL_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports['mlflow']}",
        "VIGIL_AIRFLOW_URL": f"http://127.0.0.1:{ports['airflow']}",
    }
    for role in Role:
        database = "ehr" if role in EHR_ROLES else "vigil"
        login = f"{role_name(role)}:{secrets[f'postgres_{role.value}']}"
        lines[f"VIGIL_{role.value.upper()}_DSN"] = f"postgresql://{login}@127.0.0.1:{ports['postgres']}/{database}"
    return lines


def start_all(run: Start, repository: Path) -> None:
    """Postgres first; then MLflow and Airflow at once."""
    known = {service.name: service for service in services(run.home, repository, run.ports, run.secrets)}
    start_databases(run)
    with ThreadPoolExecutor(6) as pool:
        work = [
            pool.submit(_start_one, run, known[MLFLOW]),
            pool.submit(_start_airflow, run, pool, [known[name] for name in AIRFLOW]),
        ]
        try:
            for future in work:
                future.result()
        except BaseException:
            run.failed.set()  # the others stop waiting
            raise


def start_databases(run: Start) -> None:
    """Postgres with its roles, databases and Vigil's migrations."""
    with run.step("postgres"):
        if postgres.pid(run.home) is None:
            run.began.append("postgres")
        cluster = postgres.start(run.home)
        _databases(run, cluster)
        migrate(run.settings["VIGIL_MIGRATE_DSN"])


def _databases(run: Start, cluster: postgres.Cluster) -> None:
    dsns = {role: run.settings[f"VIGIL_{role.value.upper()}_DSN"] for role in Role}
    bootstrap(cluster.dsn(), dsns, source_schema=run.settings.get("VIGIL_SOURCE_SCHEMA", "ehr"))
    with administer(cluster.dsn()) as admin:
        create_roles(admin, {name: run.secrets[f"postgres_{name}"] for name in DATABASES})
        for name in DATABASES:
            create_database(admin, name, owner=name)


def _start_airflow(run: Start, pool: ThreadPoolExecutor, parts: list[Service]) -> None:
    if not _airflow_ready(run):
        with run.step("airflow-database"):
            _set_up_airflow(run, parts[0].env)
    for future in [pool.submit(_start_one, run, part) for part in parts]:
        future.result()


def _marker(home: Path) -> Path:
    return home / "airflow" / "database.json"


def _airflow_ready(run: Start) -> bool:
    """Whether the installed Airflow has set this very database up before."""
    known = state.read_object(_marker(run.home)) or {}
    if known.get("airflow") != importlib.metadata.version("apache-airflow-core"):
        return False
    if known.get("gpu_slots") != int(run.settings.get("VIGIL_GPU_SLOTS", "1")):
        return False
    try:
        url = database_url(run.ports["postgres"], "airflow", run.secrets)
        with administer(url) as connection, connection.cursor() as cursor:
            cursor.execute("select version_num from alembic_version")
            return [(known.get("revision"),)] == cursor.fetchall()
    except psycopg2.Error:
        return False


def _set_up_airflow(run: Start, env: Mapping[str, str]) -> None:
    log = run.home / "logs" / "airflow-database.log"
    offset = processes.log_size(log)
    (run.home / "airflow").mkdir(exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "infra.embedded.airflow_setup", str(_marker(run.home))],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
        )
    try:
        while child.poll() is None:
            if run.failed.wait(0.1) or time.monotonic() > run.deadline:
                break
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
    if child.returncode and not run.failed.is_set():
        raise StackError(f"Airflow's database cannot be set up ({processes.last_error(log, offset)})", f"see {log}")


def _start_one(run: Start, service: Service) -> None:
    """Start a server unless it runs, and wait until it is healthy."""
    if run.failed.is_set():
        return
    with run.step(service.name):
        processes.rotate(service.log)
        offset = processes.log_size(service.log)
        daemon = service.daemon()
        if daemon is None:
            if service.port:
                state.require_port(run.home, service.port_name, service.port)
            run.began.append(service.name)
            daemon = processes.spawn(service.command, service.log, service.env)
            processes.save(service.pid_file, daemon)
        while not service.healthy(daemon):
            if daemon.process() is None:
                reason = processes.last_error(service.log, offset)
                raise StackError(f"{service.name} ended while it started ({reason})", f"see {service.log}")
            if time.monotonic() > run.deadline:
                reason = processes.last_error(service.log, offset)
                raise StackError(f"{service.name} is not healthy in time ({reason})", f"see {service.log}")
            if run.failed.wait(0.2):
                return  # another server failed; its error is the one to show


def take_back(run: Start, repository: Path) -> None:
    """Stop what a failed start began."""
    run.failed.set()
    known = [s for s in services(run.home, repository, run.ports, run.secrets) if s.name in run.began]
    daemons = [daemon for service in known if (daemon := service.daemon())]
    for daemon in daemons:
        processes.signal_all(processes.family(daemon), signal.SIGTERM)
    left = processes.wait_gone([p for daemon in daemons for p in processes.family(daemon)], 8.0)
    processes.signal_all(left, signal.SIGKILL)
    for service in known:
        service.pid_file.unlink(missing_ok=True)
    if "postgres" in run.began:
        postgres.stop(run.home)
