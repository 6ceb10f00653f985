"""Labels of a run, extracted by ACES, in the MEDS label schema (and ``split``, ``index``)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

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

EVENT_COLUMNS: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
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


def _shard_labels(run: TrainingRun, tasks: tuple[Task, ...], shard: int) -> dict[str, pl.DataFrame]:
    """By task: ``subject_id``, ``prediction_time``, ``boolean_value``, ``index`` of a shard at all index days.

    What ACES sees of an index day: the past as recorded by then (the view at the day), the future as known at the
    snapshot's day, and a synthetic event of each eligible subject at the prediction time.
    """
    columns = list(EVENT_COLUMNS)
    future = read_view(run.snapshot, run.as_of, shard, columns)
    parts: dict[str, list[pl.DataFrame]] = {task.name: [] for task in tasks}
    for k, day in enumerate(run.index_days, start=1):
        at, past = prediction_time(day), read_view(run.snapshot, day, shard, columns)
        known = pl.concat([past.filter(pl.col("time") < at), future.filter(pl.col("time") >= at)])
        scope = eligible_all(past, day, tasks)
        for task in tasks:
            subjects = scope[task.name].filter(pl.col("eligible")).select("subject_id")
            events = _named_by(task, known).join(subjects, on="subject_id", how="semi")
            index = subjects.with_columns(time=pl.lit(at), code=pl.lit(INDEX_CODE), numeric_value=pl.lit(None)).select(
                pl.col(name).cast(kind) for name, kind in EVENT_COLUMNS.items()
            )
            parts[task.name].append(pl.concat([events, index]).with_columns(index=pl.lit(k, dtype=pl.Int8)))
    with tempfile.TemporaryDirectory(dir=_ensure(run.path), prefix=".labels-") as scratch:
        return {task.name: _aces(task, pl.concat(parts[task.name]), Path(scratch) / "events.parquet") for task in tasks}


def _aces(task: Task, events: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Ask ACES for the label at each synthetic event.

    To ask once for all index days, each subject and day is a subject of its own for ACES: ``subject_id`` is a number
    of the two while it works.
    """
    from aces.config import TaskExtractorConfig
    from aces.predicates import get_predicates_df
    from aces.query import query
    from omegaconf import DictConfig

    logging.getLogger("aces").setLevel(logging.ERROR)  # it reports every step, and every one-sided label
    empty = pl.DataFrame(schema={name: kind for name, kind in LABEL_SCHEMA.items() if name != "split"})
    pairs = events.select("subject_id", "index").unique().sort("subject_id", "index").with_row_index("pair")
    if pairs.is_empty():
        return empty
    numbered = events.join(pairs, on=["subject_id", "index"]).select(
        pl.col("pair").cast(pl.Int64).alias("subject_id"), "time", "code", "numeric_value"
    )
    numbered.write_parquet(path)
    config = TaskExtractorConfig.load(task.path)
    found = query(config, get_predicates_df(config, DictConfig({"path": str(path), "standard": "meds"})))
    if found.is_empty():
        return empty
    answers = found.select(
        pair=pl.col("subject_id").cast(pl.UInt32),
        prediction_time=pl.col("index_timestamp").cast(pl.Datetime("us")),
        boolean_value=pl.col("label") > 0,
    )
    return answers.join(pairs, on="pair").select(empty.columns)


def _named_by(task: Task, known: pl.DataFrame) -> pl.DataFrame:
    """The events whose code a predicate of the task names: no other can change ACES's answer, unless it counts any."""
    if task.any_event:
        return known
    codes = known.select(pl.col("code").unique())  # few, where rows are many
    return known.join(codes.filter(pl.col("code").str.contains(task.codes)), on="code", how="semi")


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
