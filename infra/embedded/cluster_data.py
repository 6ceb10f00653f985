"""Where a cluster's data lie, how they are made, and whether they are whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from infra.embedded import state
from infra.embedded.binaries import Account, account, binaries
from infra.embedded.errors import StackError
from ml.common.files import write_json

ADMIN = "vigil_admin"
OUTSIDE = Path("/var/tmp")
MEMORY = Path("/dev/shm")
_ROOMY = 2 * 1024**3


def fingerprint(home: Path) -> str:
    """Short name of a state directory, for what lies outside of it."""
    return hashlib.sha256(str(home).encode()).hexdigest()[:12]


def has_room(directory: Path) -> bool:
    return directory.is_dir() and os.access(directory, os.W_OK) and shutil.disk_usage(directory).free > _ROOMY


def _sweep() -> None:
    """Remove from memory what killed test sessions left; their servers ended with them."""
    for left in MEMORY.glob("vigil-*-p*"):
        pid = left.name.rpartition("-p")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def place(home: Path, throwaway: bool) -> tuple[Path, bool]:
    """Where the cluster lies and whether it was ever initialised.

    Root's server runs as ``nobody``, who cannot enter a home that is closed to others: its data lie in /var/tmp.
    """
    known = state.read_object(home / "postgres.json")
    if known is None:
        name = f"vigil-{fingerprint(home)}-{os.urandom(4).hex()}"
        root = OUTSIDE / name if account().switch else home / "postgres"
        if throwaway and has_room(MEMORY):
            _sweep()
            root = MEMORY / f"{name}-p{os.getpid()}"
        known = {"root": str(root), "initialised": False}
        write_json(home / "postgres.json", known)
    if not isinstance(known.get("root"), str) or not isinstance(known.get("initialised"), bool):
        raise StackError(
            f"{home / 'postgres.json'} is damaged", "restore it from a backup, or begin anew with 'vigil stack clean'"
        )
    return Path(known["root"]), known["initialised"]


def initialise(home: Path, root: Path, password: str, who: Account, initialised: bool) -> Path:
    """Make the data directory where there is none yet; the directory of the server's programs."""
    if not initialised and not root.exists():
        root.mkdir(mode=0o700)
        os.chown(root, who.uid, who.gid)
    _check_owner(root, who)
    programs, data = binaries(who, root), root / "data"
    if not data.exists():
        if initialised:
            raise StackError(
                f"the database directory {data} is missing",
                "restore it from a backup, or begin anew with 'vigil stack clean'",
            )
        _initdb(root, password, programs, who)
    _check_version(data, programs, who)
    if not initialised:
        write_json(home / "postgres.json", {"root": str(root), "initialised": True})
    return programs


def _check_owner(root: Path, who: Account) -> None:
    if not root.exists():
        raise StackError(
            f"the database directory {root} is missing",
            "restore it from a backup, or begin anew with 'vigil stack clean'",
        )
    if root.is_symlink() or root.stat().st_uid != who.uid:
        raise StackError(
            f"the database directory {root} does not belong to '{who.name}', the user Postgres would run as",
            "start the stack as the user who made it",
        )


def _initdb(root: Path, secret: str, programs: Path, who: Account) -> None:
    """Initialise beside the final place and rename: a killed start leaves no half-made database there."""
    for old in root.glob("new-*"):
        shutil.rmtree(old)
    working = Path(tempfile.mkdtemp(dir=root, prefix="new-"))
    password = working / "password"
    password.write_text(secret)
    for path in (working, password):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.chown(path, who.uid, who.gid)
    arguments: list[str | Path] = ["-D", working / "data", f"--username={ADMIN}", f"--pwfile={password}"]
    arguments += ["--auth=scram-sha-256", "--encoding=UTF8", "--no-instructions"]
    arguments += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = who.run([programs / "initdb", *arguments])
    password.unlink()
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise StackError(f"initdb failed ({reason})", f"see that {root} is writable and the disk not full")
    (working / "data").rename(root / "data")
    shutil.rmtree(working)


def _check_version(data: Path, programs: Path, who: Account) -> None:
    try:
        have = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        have = ""
    if not have or not (data / "global" / "pg_control").exists():
        raise StackError(
            f"{data} is not a whole Postgres database",
            "restore it from a backup, or begin anew with 'vigil stack clean'",
        )
    words = who.run([programs / "postgres", "--version"]).stdout.split()
    want = words[-1].split(".")[0]
    if have != want:
        raise StackError(
            f"{data} was made by PostgreSQL {have}, the installed one is {want}",
            "install the version of old, dump the databases with pg_dumpall and load them into a new state directory",
        )
