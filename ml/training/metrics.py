"""Points of a training's curves as lines of JSON in the run's folder: numbers alone, nothing of a patient.

A later stage sends them to MLflow while they come (`ml.registry.live`), so that training needs no MLflow.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ml.common.files import write_bytes

EVERY = 5.0  # seconds between two points


@dataclass(frozen=True)
class Point:
    """Values after a step."""

    step: int
    time: float
    values: dict[str, float]


class Metrics:
    """The file of a stage.

    Args:
        path: ``…/metrics/<stage>.jsonl``.
        step: where the stage goes on; what was said of later steps is dropped, it will be said again.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        self.path, self._last = path, float("-inf")
        lines = [json.dumps(asdict(point)) + "\n" for point in read_points(path) if point.step <= step] if step else []
        write_bytes(path, "".join(lines).encode())

    def add(self, step: int, *, force: bool = False, **values: float) -> None:
        """A point, if the last one is some seconds old."""
        if not force and time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(Point(step, round(time.time(), 3), values))) + "\n")


def metrics_path(run: Path, stage: str) -> Path:
    """Where a run keeps the points of a stage."""
    return run / "metrics" / f"{stage}.jsonl"


def read_points(path: Path) -> Iterator[Point]:
    """The points of a file; a line that is not written to its end is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            try:
                yield Point(**json.loads(line))
            except (json.JSONDecodeError, TypeError):  # a process killed while it wrote
                continue
