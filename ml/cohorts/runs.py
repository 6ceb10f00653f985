"""One retraining: its snapshot, its index days, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from ml.extraction import load_snapshot, newest_snapshot
from ml.extraction.snapshot import Snapshot
from ml.settings import get_settings


@dataclass(frozen=True)
class TrainingRun:
    """Paths and days of one retraining. Equal snapshots give the same run, so a rerun finds its files.

    Attributes:
        snapshot: what the run learns from and is judged on.
        index_days: t1 (newest) … tK, each ``index_step`` days before the next.
        path: ``data/training/<as_of>-<first 12 of the snapshot digest>``.
    """

    snapshot: Snapshot
    index_days: tuple[date, ...]
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def as_of(self) -> date:
        return self.snapshot.as_of

    @property
    def test_day(self) -> date:
        """t1, the temporal hold-out: nothing a model learns from is later."""
        return self.index_days[0]

    @property
    def training_days(self) -> tuple[date, ...]:
        """t2 … tK, the index days of fine-tuning."""
        return self.index_days[1:]

    def labels(self, task: str) -> Path:
        return self.path / "labels" / f"{task}.parquet"

    def times(self, task: str) -> Path:
        return self.path / "labels" / "times" / f"{task}.parquet"

    def predictions(self, model: str) -> Path:
        """MEDS evaluation schema plus ``task`` and ``split``: held-out and tuning patients at every index day."""
        return self.path / "predictions" / f"{model}.parquet"

    @property
    def vocabulary(self) -> Path:
        return self.path / "vocabulary.json"

    @property
    def pretrained(self) -> Path:
        return self.path / "pretrained"

    @property
    def finetuned(self) -> Path:
        return self.path / "finetuned"

    @property
    def recurrent(self) -> Path:
        return self.path / "recurrent"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def report(self) -> Path:
        """The model's report for people, one HTML file."""
        return self.path / "report.html"


def open_run(as_of: date | None = None) -> TrainingRun:
    """The run on the snapshot of a day, or on the newest.

    Raises:
        NotFoundError: there is no such snapshot.
    """
    settings = get_settings()
    snapshot = load_snapshot(as_of) if as_of else newest_snapshot()
    days = tuple(snapshot.as_of - timedelta(days=settings.index_step * k) for k in range(1, settings.index_days + 1))
    path = settings.data_dir / "training" / f"{snapshot.as_of}-{snapshot.digest[:12]}"
    return TrainingRun(snapshot, days, path)
