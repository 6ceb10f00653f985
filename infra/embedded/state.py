"""The state directory: its secrets, its ports, its lock. Written once, kept for life."""

from __future__ import annotations

import fcntl
import json
import random
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from infra.embedded.errors import StackError
from ml.common.files import read_json, write_json

FILES = ("secrets.json", "ports.json", "postgres.json", "vigil.env", "stack.lock", "postgres.lock")
FOLDERS = ("data", "logs", "run", "mlflow", "airflow", "postgres")
OWN = {*FILES, *FOLDERS}
_PORTS = (20_000, 32_767)  # below the range the kernel gives to outgoing connections, so that a kept port stays free


def prepare(home: Path) -> Path:
    """Make the state directory (0700: it holds secrets and patients) and return it, absolute.

    Raises:
        StackError: it cannot be made or written.
    """
    home = home.absolute()
    try:
        if not home.exists():
            home.mkdir(parents=True, mode=0o700)
        if {path.name for path in home.iterdir()} <= OWN:  # never the mode of a directory that others use too
            home.chmod(0o700)
        (home / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise StackError(
            f"the state directory {home} cannot be used ({error.strerror})",
            "set VIGIL_HOME to a directory of yours",
        ) from None
    return home


def read_object(path: Path) -> dict[str, Any] | None:
    """A JSON object from the state directory, or None where the file does not exist.

    Raises:
        StackError: the file is there and is not what it should be.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError):
        value = None
    except OSError as error:
        raise StackError(f"{path} cannot be read ({error.strerror})", "run as the user who started the stack") from None
    if not isinstance(value, dict):
        raise StackError(f"{path} is damaged", "restore it from a backup, or begin anew with 'vigil stack clean'")
    return value


def load_secrets(home: Path, names: tuple[str, ...], *, initialised: bool) -> dict[str, str]:
    """The generated secrets of a deployment (``secrets.json``, 0600), made where it is new.

    Names that a later version adds are generated on its first start; existing ones never change.

    Args:
        initialised: data exist that can only be reached with the secrets of old.

    Raises:
        StackError: the file is missing though data exist, or damaged.
    """
    path = home / "secrets.json"
    known = read_object(path)
    if known is None and initialised:
        raise StackError(
            f"the password file {path} is missing, though a database exists",
            "restore it from a backup, or begin anew with 'vigil stack clean'",
        )
    known = known or {}
    if not all(isinstance(value, str) and value for value in known.values()):
        raise StackError(f"{path} is damaged", "restore it from a backup, or begin anew with 'vigil stack clean'")
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_hex(32) for name in missing}
        write_json(path, known, 0o600)
    return {str(name): str(value) for name, value in known.items()}


def load_ports(home: Path, names: tuple[str, ...]) -> dict[str, int]:
    """The ports of a deployment (``ports.json``): chosen free on the first start, kept from then on.

    Raises:
        StackError: the file is damaged.
    """
    path = home / "ports.json"
    known = read_object(path) or {}
    if not all(isinstance(port, int) and 0 < port < 65_536 for port in known.values()):
        raise StackError(f"{path} is damaged", "delete this one file; the next start chooses new ports")
    for name in names:
        if name not in known:
            known[name] = free_port(tuple(known.values()))
    if known != read_object(path):
        write_json(path, known)
    return known


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(taken: tuple[int, ...] = ()) -> int:
    """A port of 127.0.0.1 on which nothing listens.

    Raises:
        StackError: none was found.
    """
    draw = random.SystemRandom()
    for _ in range(500):
        port = draw.randint(*_PORTS)
        if port not in taken and port_is_free(port):
            return port
    raise StackError("no free port on 127.0.0.1", "end what listens there")


def port_owner(port: int) -> str:
    """Who listens on a port, in words, as far as this user may see."""
    with suppress(psutil.Error, PermissionError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid:
                    return f"process {connection.pid}, {psutil.Process(connection.pid).name()}"
                break
    return "a process this user cannot see"


def require_port(home: Path, name: str, port: int) -> None:
    """Check that a kept port can be taken.

    Raises:
        StackError: somebody else listens there.
    """
    if not port_is_free(port):
        raise StackError(
            f"port {port} of {name} is in use ({port_owner(port)})",
            f"end that process, or write another port for {name} into {home / 'ports.json'}",
        )


@contextmanager
def locked(home: Path, name: str = "stack", seconds: float = 300.0) -> Iterator[None]:
    """Hold the deployment's lock; a second start or stop waits for the first. A dead holder's lock is free.

    Raises:
        StackError: the holder does not finish in time.
    """
    deadline = time.monotonic() + seconds
    with (home / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"another start or stop of {home} is still at work after {seconds:.0f} s",
                        "wait for it or end it, then try again",
                    ) from None
                time.sleep(0.1)
        yield
