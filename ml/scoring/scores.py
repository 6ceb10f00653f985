"""Risk scores of one shard: one forward pass per subject gives all outcomes."""

from __future__ import annotations

import io
import logging
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.cohorts import Task, eligible_all, load_tasks
from ml.common.errors import VigilError
from ml.common.files import read_json, sha256_file, write_bytes, write_json
from ml.extraction import load_snapshot, read_view
from ml.extraction.snapshot import Snapshot
from ml.sequences import Item, Vocabulary, load_vocabulary, tokenise
from ml.sequences.tokens import COLUMNS
from ml.settings import get_settings

log = logging.getLogger(__name__)

SCORE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "subject_id": pl.Int64,
    "outcome": pl.String,
    "horizon_days": pl.Int32,
    "risk": pl.Float32,
    "in_scope": pl.Boolean,
    "scope_reason": pl.String,
}


def score_path(as_of: date, model_version: int, shard: int) -> Path:
    """Where the scores of a day, model version and shard lie."""
    return get_settings().data_dir / "scores" / str(as_of) / str(model_version) / f"part-{shard:03d}.parquet"


def provenance(snapshot: Snapshot, model_dir: Path) -> dict[str, str]:
    """What scores are made from, as the stamp beside each shard's file holds it: digests of the view and the model."""
    files = ("config.json", "model.safetensors", "vocabulary.json")
    return {"snapshot": snapshot.digest, **{name: sha256_file(model_dir / name) for name in files}}


def score_shard(snapshot: Snapshot, shard: int, model_dir: Path, model_version: int) -> Path:
    """Score every subject of a shard as of the snapshot's day; a finished file from the same inputs is kept.

    Args:
        snapshot: its view at ``snapshot.as_of`` is what is scored.
        shard: which subjects.
        model_dir: the champion's files: config.json, model.safetensors, vocabulary.json.
        model_version: its version in the registry.

    Returns:
        A Parquet file of ``SCORE_SCHEMA``, one row per subject and outcome; a subject out of scope has no risk and
        a reason.

    Raises:
        VigilError: the vocabulary is not the model's, or an outcome of the model is no task.
    """
    path = score_path(snapshot.as_of, model_version, shard)
    made_from = provenance(snapshot, model_dir)
    stamp = path.with_suffix(".json")
    if path.exists() and stamp.exists() and read_json(stamp) == made_from:
        return path
    frame = score_view(read_view(snapshot, snapshot.as_of, shard, COLUMNS), snapshot.as_of, model_dir)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    stamp.unlink(missing_ok=True)
    write_bytes(path, buffer.getvalue())
    write_json(stamp, made_from)
    log.info("scored shard %d: %d rows, %d in scope", shard, frame.height, int(frame["in_scope"].sum()))
    return path


def score_day(as_of: date, shard: int, model_dir: Path, model_version: int) -> dict[str, Any]:
    """Score a shard of a day's snapshot; counts only. Who may be champion is for the caller to have verified, and
    publication verifies it again.

    Raises:
        NotFoundError: there is no snapshot of that day.
    """
    frame = pl.read_parquet(score_shard(load_snapshot(as_of), shard, model_dir, model_version))
    return {"model_version": model_version, "rows": frame.height, "in_scope": int(frame["in_scope"].sum())}


def score_view(view: pl.DataFrame, day: date, model_dir: Path) -> pl.DataFrame:
    """Scores of every subject of a view (see `score_shard`)."""
    import torch

    from ml.models.medbert import load_model
    from ml.training.inference import risks_of
    from ml.training.precision import device

    torch.set_num_threads(1)  # threads work on batches, see ml.training.parallel
    model = load_model(model_dir).to(device())
    vocabulary = checked_vocabulary(model_dir, model.config.vocabulary_digest)
    tasks = load_tasks(tuple(model.config.outcomes))
    scope = eligible_all(view, day, tasks)
    sequences = tokenise(view, day, vocabulary)
    rows = np.flatnonzero(_anywhere_eligible(scope, sequences.subjects))
    risks = np.full((sequences.subjects.size, len(tasks)), np.nan, np.float32)
    risks[rows] = risks_of(model, Item([sequences], np.zeros(rows.size, np.int64), rows))
    frames = [_rows(task, scope[task.name], risks[:, column]) for column, task in enumerate(tasks)]
    return pl.concat(frames).sort("subject_id", "outcome")


def combine(snapshot: Snapshot, model_version: int) -> pl.DataFrame:
    """The scores of all shards.

    Raises:
        VigilError: a shard has none yet, or they are another snapshot's.
    """
    frames = []
    for shard in range(snapshot.shards):
        path = score_path(snapshot.as_of, model_version, shard)
        stamp = path.with_suffix(".json")
        if not path.exists() or not stamp.exists() or read_json(stamp)["snapshot"] != snapshot.digest:
            raise VigilError(
                f"shard {shard} of {snapshot.as_of} has no scores of version {model_version} on this snapshot",
                "score all shards first",
            )
        frames.append(pl.read_parquet(path))
    return pl.concat(frames).sort("subject_id", "outcome")


def checked_vocabulary(model_dir: Path, digest: str) -> Vocabulary:
    """The model's vocabulary.

    Raises:
        VigilError: it is not the one the model was trained on.
    """
    vocabulary = load_vocabulary(model_dir / "vocabulary.json")
    if vocabulary.digest != digest:
        raise VigilError(
            f"the vocabulary in {model_dir} is not the one the model was trained on", "fetch the model's files again"
        )
    return vocabulary


def _anywhere_eligible(scope: dict[str, pl.DataFrame], subjects: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """``[subjects]``: whether a subject is in scope of any outcome; only those are worth a forward pass."""
    found = np.zeros(subjects.size, bool)
    for frame in scope.values():
        found |= frame["eligible"].to_numpy()  # both are sorted by subject and hold every subject of the view
    return found


def _rows(task: Task, scope: pl.DataFrame, risks: npt.NDArray[np.float32]) -> pl.DataFrame:
    frame = scope.with_columns(
        outcome=pl.lit(task.name),
        horizon_days=pl.lit(task.horizon_days, dtype=pl.Int32),
        risk=pl.when(pl.col("eligible")).then(pl.Series(risks)),
    ).rename({"eligible": "in_scope", "reason": "scope_reason"})
    return frame.select(pl.col(name).cast(kind) for name, kind in SCORE_SCHEMA.items())
