"""A deployment in a directory of its own, driven by the command line as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ml.settings import Role, get_settings


@dataclass(frozen=True)
class Deployment:
    """One home directory, and the settings that every command is given."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``vigil``. Thirty events, the least that can be judged, are enough, and the smallest model."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIGIL_", "AIRFLOW"))}
        small = {"VIGIL_DEMO_PATIENTS": "2500", "VIGIL_GATE_EVENTS": "30", "VIGIL_PRESET": "tiny"}
        ours = {"VIGIL_HOME": str(self.home), **small}
        environment = {**kept, **ours, **self.settings, "COLUMNS": "200"}
        command = [sys.executable, "-m", "ml.cli", *words]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def vigil(self, *words: str, timeout: float = 1400) -> subprocess.CompletedProcess[str]:
        """Run ``vigil`` to its end."""
        process = self.start(*words)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def query(self, role: Role, text: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Rows of a query as a role of the deployment."""
        from ml.common.db import connect, fetch

        with connect(role) as connection:
            return fetch(connection, text, values)


@contextmanager
def deployed(home: Path, settings: Mapping[str, str]) -> Iterator[Deployment]:
    """A deployment that does not exist yet; gone without a trace afterwards. Settings in this process are its own."""
    found = Deployment(home, settings)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VIGIL_") and name != "VIGIL_TEST_DATA"]:
            patch.delenv(name)
        patch.setenv("VIGIL_HOME", str(home))
        get_settings.cache_clear()
        yield found
        assert found.vigil("stack", "clean", "--yes").returncode == 0
    get_settings.cache_clear()
    assert not home.exists()
