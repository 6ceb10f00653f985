"""Finished parts of an experiment on disk. A cell is one model on one draw or fold: whole, or done again."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.common.files import read_json, sha256_bytes, sha256_file, write_bytes, write_json
from ml.common.progress import Progress

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
SAID_EVERY = 10.0  # seconds between two lines


@dataclass(frozen=True)
class Outcome:
    """What a cell found.

    Attributes:
        values: numbers by name, for people and tables.
        risks: ``[rows, tasks]`` scores of the judged rows, or None.
    """

    values: dict[str, Any]
    risks: Floats | None = None


@dataclass(frozen=True)
class Cells:
    """The cells of one set-up, in a folder: ``<cell>.json`` and, where it has scores, ``<cell>.npy``."""

    folder: Path

    def read(self, name: str) -> Outcome | None:
        """A finished cell; None where it is absent, cut off or damaged."""
        try:
            found = read_json(self.folder / f"{name}.json")
            values, digest = dict(found["values"]), found["risks"]
            if digest is None:
                return Outcome(values)
            path = self.folder / f"{name}.npy"
            if sha256_file(path) != digest:
                return None
            return Outcome(values, np.load(path, allow_pickle=False))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, name: str, outcome: Outcome) -> None:
        """Scores first, then the file that names their digest: a process killed in between leaves no cell."""
        digest = None
        if outcome.risks is not None:
            buffer = io.BytesIO()
            np.save(buffer, outcome.risks, allow_pickle=False)
            write_bytes(self.folder / f"{name}.npy", buffer.getvalue())
            digest = sha256_bytes(buffer.getvalue())
        write_json(self.folder / f"{name}.json", {"cell": name, "values": outcome.values, "risks": digest})


@dataclass
class Worker:
    """Does the cells that are not done yet, and says how long the rest will take.

    Attributes:
        cells: where they are kept.
        stage: name of the progress.
        say: takes a line for people.
    """

    cells: Cells
    stage: str
    say: Callable[[str], None] = log.info
    _seconds: dict[str, list[float]] = field(default_factory=dict)

    def run(self, todo: Iterable[tuple[str, str]], work: Callable[[str], Outcome]) -> dict[str, Outcome]:
        """Every cell's outcome, by name.

        Args:
            todo: kind and name of the cells, in order; cells of a kind take about the same time.
            work: does a cell.
        """
        planned = list(todo)
        found = self.done(planned)
        for kind, name in planned:
            if name in found:
                self._seconds.setdefault(kind, []).append(float(found[name].values.get("seconds", 0.0)))
        self.say(f"{len(planned)} cells, {len(found)} of them done{self._left(planned, found)}")
        progress, told = Progress(self.stage, len(planned)), 0.0
        for kind, name in planned:
            if name in found:
                continue
            began = time.monotonic()
            outcome = work(name)
            seconds = round(time.monotonic() - began, 2)
            found[name] = Outcome({**outcome.values, "seconds": seconds}, outcome.risks)
            self.cells.write(name, found[name])
            self._seconds.setdefault(kind, []).append(seconds)
            progress.report(len(found), f"{name}{self._left(planned, found)}")
            if time.monotonic() - told > SAID_EVERY or len(found) == len(planned):
                told = time.monotonic()
                self.say(f"{len(found)} of {len(planned)}: {name}{self._left(planned, found)}")
        return found

    def done(self, todo: Iterable[tuple[str, str]]) -> dict[str, Outcome]:
        """The outcomes of the cells that are finished, by name."""
        return {name: outcome for _, name in todo if (outcome := self.cells.read(name)) is not None}

    def _left(self, planned: list[tuple[str, str]], found: dict[str, Outcome]) -> str:
        """Time for what is left, from the cells of its kind; nothing where one kind was never timed."""
        rest = [kind for kind, name in planned if name not in found]
        if not rest or any(kind not in self._seconds for kind in rest):
            return ""
        minutes = sum(float(np.median(self._seconds[kind])) for kind in rest) / 60
        return f", about {minutes:.0f} minutes left"
