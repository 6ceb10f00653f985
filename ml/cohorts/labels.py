"""Labels of a run, extracted by ACES, in the MEDS label schema (and ``split``, ``index``)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from ml.cohorts.eligibility import eligible_all, prediction_time
from ml.cohorts.runs import TrainingRun
from ml.cohorts.splits import check_disjoint, split_all
from ml.cohorts.tasks import INDEX_CODE, Task, load_tasks
from ml.common.errors import VigilError
from ml.common.files import new_directory, read_json, sha256_bytes, write_json
from ml.extraction import read_view
from ml.settings import get_settings

log = logging.getLogger(__name__)

LABEL_SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "boolean_value": pl.Boolean,
    "split": pl.String,
    "index": pl.Int8,
}


def make_labels(run: TrainingRun) -> dict[str, int]:
    """Write ``run.labels(task)`` for every task of the settings; a finished set with the same inputs is kept.

    A row: an eligible subject at one index day. ``index`` is k of t_k (1 is the newest day).

    Returns:
        Number of labels by task.

    Raises:
        VigilError: a subject's rows lie in two splits.
    """
    settings = get_settings()
    tasks = load_tasks(settings.tasks)
    folder = run.labels(tasks[0].name).parent
    inputs = _inputs(run, tasks)
    manifest = folder / "manifest.json"
    if manifest.exists() and read_json(manifest)["inputs"] == inputs:
        return dict(read_json(manifest)["counts"])
    parts = [_shard_labels(run, tasks, shard) for shard in range(run.snapshot.shards)]
    counts = {}
    with new_directory(folder) as working:
        for task in tasks:
            frame = _finish([part[task.name] for part in parts], settings.split_salt)
            frame.write_parquet(working / f"{task.name}.parquet")
            counts[task.name] = frame.height
            log.info("labels %s: %d rows, %d positive", task.name, frame.height, int(frame["boolean_value"].sum()))
        write_json(working / "manifest.json", {"inputs": inputs, "counts": counts})
    return counts


def read_labels(run: TrainingRun, task: str) -> pl.DataFrame:
    """The labels of one task.

    Raises:
        VigilError: they were not made yet.
    """
    path = run.labels(task)
    if not path.exists():
        raise VigilError(f"there are no labels of '{task}' in run {run.name}", "run `vigil cohorts labels` first")
    return pl.read_parquet(path)


def labels_at(
    past: pl.DataFrame, future: pl.DataFrame, day: date, tasks: tuple[Task, ...], scratch: Path
) -> dict[str, pl.DataFrame]:
    """Labels at one index day.

    Args:
        past: view at ``day``: who is eligible, and ACES's history.
        future: view at the snapshot's day: what happened after the prediction time.
        scratch: an existing folder that ACES may read its events from.

    Returns:
        By task: ``subject_id``, ``prediction_time``, ``boolean_value``.
    """
    at = prediction_time(day)
    scope = eligible_all(past, day, tasks)
    columns = ["subject_id", "time", "code", "numeric_value"]
    known = pl.concat(
        [past.filter(pl.col("time") < at).select(columns), future.filter(pl.col("time") >= at).select(columns)]
    )
    labels = {}
    for task in tasks:
        subjects = scope[task.name].filter(pl.col("eligible"))["subject_id"]
        labels[task.name] = _aces(known, subjects, day, task, scratch / "events.parquet")
    return labels


def _aces(known: pl.DataFrame, subjects: pl.Series, day: date, task: Task, path: Path) -> pl.DataFrame:
    """Ask ACES for the label at one synthetic event per eligible subject."""
    from aces.config import TaskExtractorConfig
    from aces.predicates import get_predicates_df
    from aces.query import query
    from omegaconf import DictConfig

    logging.getLogger("aces").setLevel(logging.ERROR)  # it reports every step, and every one-sided label
    empty = pl.DataFrame(schema={name: kind for name, kind in LABEL_SCHEMA.items() if name not in ("split", "index")})
    if subjects.is_empty():
        return empty
    config = TaskExtractorConfig.load(task.path)
    index = pl.DataFrame({"subject_id": subjects}).with_columns(
        time=pl.lit(prediction_time(day), dtype=pl.Datetime("us")),
        code=pl.lit(INDEX_CODE),
        numeric_value=pl.lit(None, dtype=pl.Float32),
    )
    relevant = _named_by(config, known, task).join(pl.DataFrame({"subject_id": subjects}), on="subject_id", how="semi")
    pl.concat([relevant, index]).write_parquet(path)
    found = query(config, get_predicates_df(config, DictConfig({"path": str(path), "standard": "meds"})))
    if found.is_empty():
        return empty
    return found.select(
        "subject_id",
        prediction_time=pl.col("index_timestamp").cast(pl.Datetime("us")),
        boolean_value=pl.col("label") > 0,
    )


def _named_by(config: Any, known: pl.DataFrame, task: Task) -> pl.DataFrame:
    """The events whose code a predicate of the task names: no other can change ACES's answer, unless it counts any."""
    if any(word in task.path.read_text() for word in ("_ANY_EVENT", "_RECORD_START", "_RECORD_END")):
        return known
    codes = known.select(pl.col("code").unique())  # few, where rows are many
    by_code = [replace(p, value_min=None, value_max=None, other_cols={}) for p in config.plain_predicates.values()]
    return known.join(codes.filter(pl.any_horizontal([p.MEDS_eval_expr() for p in by_code])), on="code", how="semi")


def _shard_labels(run: TrainingRun, tasks: tuple[Task, ...], shard: int) -> dict[str, pl.DataFrame]:
    future = read_view(run.snapshot, run.as_of, shard)
    by_task: dict[str, list[pl.DataFrame]] = {task.name: [] for task in tasks}
    with tempfile.TemporaryDirectory(dir=_ensure(run.path), prefix=".labels-") as scratch:
        for k, day in enumerate(run.index_days, start=1):
            past = read_view(run.snapshot, day, shard)
            for name, frame in labels_at(past, future, day, tasks, Path(scratch)).items():
                by_task[name].append(frame.with_columns(index=pl.lit(k, dtype=pl.Int8)))
    return {name: pl.concat(frames) for name, frames in by_task.items()}


def _finish(frames: Iterable[pl.DataFrame], salt: str) -> pl.DataFrame:
    frame = pl.concat(frames)
    splits = split_all(frame["subject_id"].unique().to_list(), salt)
    frame = frame.with_columns(
        split=pl.col("subject_id").replace_strict(splits, return_dtype=pl.String)
        if splits
        else pl.lit(None, dtype=pl.String)
    )
    check_disjoint(frame)
    return frame.select(pl.col(name).cast(kind) for name, kind in LABEL_SCHEMA.items()).sort(
        "subject_id", "prediction_time"
    )


def _inputs(run: TrainingRun, tasks: tuple[Task, ...]) -> dict[str, object]:
    return {
        "snapshot": run.snapshot.digest,
        "index_days": [str(day) for day in run.index_days],
        "tasks": {task.name: sha256_bytes(task.path.read_bytes()) for task in tasks},
        "split_salt": sha256_bytes(get_settings().split_salt.encode()),
    }


def _ensure(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
