"""Points of a training's curves as lines of JSON in the run's folder: numbers alone, nothing of a patient.

A later stage sends them to MLflow while they come (`ml.registry.live`), so that training needs no MLflow.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ml.common.files import write_bytes

EVERY = 5.0  # seconds between two points


@dataclass(frozen=True)
class Point:
    """Values after a step; ``time`` in seconds since 1970."""

    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Curves:
    """What a file says: of which inputs, and the points so far."""

    inputs: str
    points: list[Point]


class Metrics:
    """The file of a stage.

    Args:
        path: see `metrics_path`.
        inputs: digest of all that the stage depends on; points of others are dropped.
        step: where the stage goes on; what was said of later steps is dropped, it will be said again.
    """

    def __init__(self, path: Path, inputs: str, step: int = 0) -> None:
        self.path, self._last = path, float("-inf")
        before = read_curves(path)
        kept = [p for p in before.points if p.step <= step] if before and before.inputs == inputs else []
        write_bytes(path, "".join(_line(value) for value in [{"inputs": inputs}, *map(asdict, kept)]).encode())

    def add(self, step: int, *, force: bool = False, **values: float) -> None:
        """A point, if the last one is some seconds old."""
        if not force and time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        with self.path.open("a") as file:
            file.write(_line(asdict(Point(step, round(time.time(), 3), values))))


def metrics_path(run: Path, stage: str) -> Path:
    """Where a run keeps the points of a stage."""
    return run / "metrics" / f"{stage}.jsonl"


def read_curves(path: Path) -> Curves | None:
    """What is in a file, up to a line that is being written; None where there is nothing."""
    whole = (
        [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")] if path.exists() else []
    )
    if not whole:
        return None
    return Curves(json.loads(whole[0])["inputs"], [Point(**json.loads(line)) for line in whole[1:]])


def _line(value: object) -> str:
    return json.dumps(value) + "\n"
