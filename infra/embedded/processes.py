"""Daemons: started in a session of their own, found again by pid and creation time, stopped with all they started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.embedded.errors import StackError
from ml.common.files import read_json, write_json

MARK = "VIGIL_STACK"  # environment variable of everything that belongs to a stack: the stack's state directory
_CLOCK = 10.0  # seconds by which a creation time may drift when the machine's clock is set
_PR_SET_PDEATHSIG = 1
_children: dict[int, subprocess.Popen[bytes]] = {}  # handles of what this process started, to be reaped


@dataclass(frozen=True)
class Daemon:
    """A process that is not mistaken for a later one of the same number."""

    pid: int
    created: float

    def process(self) -> psutil.Process | None:
        """The living process, or None where it has ended."""
        reap()
        found = self._found()
        return found if found and alive(found) else None

    def replaced(self) -> bool:
        """Whether the number belongs to another process now."""
        return psutil.pid_exists(self.pid) and self._found() is None

    def _found(self) -> psutil.Process | None:
        try:
            found = psutil.Process(self.pid)
            return found if abs(found.create_time() - self.created) < _CLOCK else None
        except psutil.Error:
            return None


def alive(process: psutil.Process) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def reap() -> None:
    """Collect ended children of this process, so that none stays as a zombie."""
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)


def spawn(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str],
    *,
    user: tuple[int, int] | None = None,
    die_with_parent: bool = False,
) -> Daemon:
    """Start a daemon: its own session and process group, output appended to ``log``, no terminal, no inherited pipe.

    Args:
        user: uid and gid to run as; only root may set it.
        die_with_parent: Linux only, for tests: ended when the process that started it ends.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    identity = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    with log.open("ab") as output:
        child = subprocess.Popen(  # type: ignore[call-overload]
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd="/",
            start_new_session=True,
            preexec_fn=_end_with_parent if die_with_parent and sys.platform == "linux" else None,
            **identity,
        )
    _children[child.pid] = child
    try:
        return Daemon(child.pid, psutil.Process(child.pid).create_time())
    except psutil.NoSuchProcess:
        return Daemon(child.pid, 0.0)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def save(path: Path, daemon: Daemon) -> None:
    """Write a pid file."""
    write_json(path, {"pid": daemon.pid, "created": daemon.created})


def load(path: Path) -> Daemon | None:
    """Read a pid file; None where there is none.

    Raises:
        StackError: the file is not a pid file.
    """
    try:
        value = read_json(path)
        return Daemon(int(value["pid"]), float(value["created"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise StackError(
            f"the pid file {path} is damaged",
            "see with ps that the process it stood for has ended, delete this one file and start again",
        ) from None


def family(daemon: Daemon) -> list[psutil.Process]:
    """Every living process of a daemon, itself first: its descendants and what is left of its session."""
    leader = daemon.process()
    members = [leader] if leader else []
    if not daemon.replaced():  # the kernel gives no number away that still names a session
        members += [p for p in psutil.process_iter() if _session(p.pid) == daemon.pid]
    for member in list(members):
        with contextlib.suppress(psutil.Error):
            members += member.children(recursive=True)
    return [process for process in dict.fromkeys(members) if alive(process)]


def marked(home: Path) -> list[psutil.Process]:
    """Processes whose environment says that they belong to the stack of ``home``, except this one and its parents.

    It finds what left its daemon's session, as distributed training does. A process that rewrote its title has lost
    its environment and is found by its session instead.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in own and process.environ().get(MARK) == str(home) and alive(process):
                found.append(process)
    return found


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until the processes have ended; those that have not in time."""
    left = list(processes)
    deadline = time.monotonic() + seconds
    while True:
        reap()
        left = [process for process in left if alive(process)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def stop(daemons: Sequence[Daemon], home: Path, *, patience: float = 10.0) -> None:
    """End daemons and everything they started: SIGTERM to each, and SIGKILL to what remains.

    Raises:
        StackError: a process survives SIGKILL.
    """
    members = [process for daemon in daemons for process in family(daemon)]
    leaders = [process for daemon in daemons if (process := daemon.process())]
    signal_all(leaders, signal.SIGTERM)  # leaders first: they end their children in good order
    wait_gone(leaders, patience)
    for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        members += [process for daemon in daemons for process in family(daemon)]
        members = [process for process in dict.fromkeys([*members, *marked(home)]) if alive(process)]
        signal_all(members, number)
        members = wait_gone(members, seconds)
    if members:
        pids = ", ".join(str(process.pid) for process in members)
        raise StackError(f"processes do not end: {pids}", "look at them with ps and end them by hand")


def signal_all(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to each; one that has ended meanwhile is no fault."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Poll a condition; whether it held in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def rotate(log: Path, limit: int = 20_000_000) -> None:
    """Set a long log aside, in place of the one set aside before; a server that writes to it goes on doing so."""
    if log_size(log) > limit:
        log.replace(log.with_suffix(".old.log"))


def log_size(log: Path) -> int:
    """Bytes in a log, 0 where it does not exist."""
    return log.stat().st_size if log.exists() else 0


def last_error(log: Path, offset: int = 0) -> str:
    """The last line since ``offset`` bytes that looks like an error, else the last line, cut to 400 characters."""
    if not log.exists():
        return "it wrote no log"
    with log.open("rb") as file:
        file.seek(max(offset, log_size(log) - 65_536))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    marks = ("error", "fatal", "panic", "exception", "critical")
    wrong = [line for line in lines if any(mark in line.lower() for mark in marks)]
    return (wrong or lines or ["it wrote nothing to its log"])[-1][:400]
