"""``vigil.env``: the settings of a deployment, which ``ml.settings`` reads, and the environment of its daemons."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.embedded.errors import StackError
from infra.embedded.processes import MARK
from ml.common.files import write_bytes
from ml.settings import Settings

_LINE = re.compile(r"""^(VIGIL_[A-Z0-9_]+)=(?:'([^'\n]*)'|"([^"\n]*)"|([^'"#\s][^#\n]*)?)\s*(?:#.*)?$""")
_FOREIGN = ("AIRFLOW", "MLFLOW_", "_MLFLOW", "_AIRFLOW", "PG")  # of another deployment: they must not reach ours
_HEAD = """\
# Settings of this deployment. Lines may be changed, except those that each start writes anew:
# connection strings, URLs, VIGIL_HOME and VIGIL_EMBEDDED. An environment variable of the same name wins.
"""


def read(path: Path) -> dict[str, str]:
    """The settings in a file; empty where it does not exist.

    Raises:
        StackError: a line is not of the form ``VIGIL_NAME='value'``. The line is not shown, it may hold a secret.
    """
    if not path.exists():
        return {}
    found = {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise StackError(f"{path} cannot be read", "restore it from a backup") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line.strip())
        if match is None:
            raise StackError(f"{path} is damaged in line {number}", "write the line as VIGIL_NAME='value'")
        found[match[1]] = next((part.strip() for part in match.groups()[1:] if part is not None), "")
    return found


def write(path: Path, settings: Mapping[str, str]) -> None:
    """Write the settings, 0600.

    Raises:
        StackError: a value cannot be written in one quoted line.
    """
    for name, value in settings.items():
        if "'" in value or "\n" in value:
            raise StackError(f"{name} holds a quote or a line break", "choose another value")
    lines = [f"{name}='{value}'" for name, value in sorted(settings.items())]
    content = (_HEAD + "\n".join(lines) + "\n").encode()
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content, 0o600)


def update(home: Path, settings: Mapping[str, str]) -> None:
    """Change kept settings of a deployment, for example ``{"VIGIL_CALENDAR_END": "2024-01-31"}``.

    Tasks that start from now on see them; ``get_settings.cache_clear()`` lets the caller see them.
    """
    path = home.absolute() / "vigil.env"
    write(path, read(path) | dict(settings))


def remembered(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Settings in the caller's environment that a new deployment keeps. Connections and places are not among them."""
    generated = ("VIGIL_HOME", "VIGIL_EMBEDDED", "VIGIL_MLFLOW_TRACKING_URI", "VIGIL_AIRFLOW_URL")
    names = {f"VIGIL_{field.upper()}" for field in Settings.model_fields} - set(generated)
    return {k: v for k, v in environment.items() if k in names and not k.endswith("_DSN")}


def daemon_environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of a daemon: the caller's, rid of other deployments' variables, and where its state lies.

    The caller's ``VIGIL_*`` variables go through and win over ``vigil.env``, as they do for the command line.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, *(p for p in kept.get("PATH", "").split(os.pathsep) if p and p != programs)])
    ours = {"PATH": path, "VIGIL_HOME": str(home), MARK: str(home), "PYTHONUNBUFFERED": "1"}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "GIT_PYTHON_REFRESH": "quiet"}
    return kept | ours | quiet | dict(extra)
