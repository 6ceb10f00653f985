"""Labels of a run: time to event with censoring, and the binary labels that derive from it (MEDS label schema)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, timedelta

import polars as pl

from ml.cohorts.eligibility import eligible_all, holds, prediction_time
from ml.cohorts.evaluability import Evaluability, evaluability
from ml.cohorts.matching import Matches
from ml.cohorts.runs import TrainingRun
from ml.cohorts.splits import check_disjoint, split_all
from ml.cohorts.tasks import Task, load_tasks
from ml.cohorts.views import views_at
from ml.common.errors import VigilError
from ml.common.files import new_directory, read_json, sha256_bytes, write_json
from ml.extraction.schema import BIRTH, DEATH
from ml.settings import get_settings

log = logging.getLogger(__name__)

FORMAT = 3  # of the files: labels of another format are made again
FLOW = "flow.json"
DIED = "death"
END_OF_RECORD = "end of record"

LABEL_SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "boolean_value": pl.Boolean,
    "split": pl.String,
    "index": pl.Int8,
}

SPLIT_SCHEMA = {"subject_id": pl.Int64, "split": pl.String}

TIMES_SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "event": pl.Boolean,
    "observed_days": pl.Float64,
    "censored": pl.String,
    "complete": pl.Boolean,
    "before_birth": pl.Boolean,
    "split": pl.String,
    "index": pl.Int8,
}

FLOW_SCHEMA: dict[str, type[pl.DataType] | pl.DataType] = {
    "task": pl.String,
    "index": pl.Int8,
    "split": pl.String,
    "reason": pl.String,
    "rows": pl.Int64,
}


@dataclass(frozen=True)
class FollowUp:
    """What became of everybody a record knows.

    Attributes:
        times: by task, ``TIMES_SCHEMA`` (see `task_times`).
        flow: who was asked and why not (``FLOW_SCHEMA``): subjects of the view at an index day by split and the reason
            that keeps them out, null for those in scope.
    """

    times: dict[str, pl.DataFrame]
    flow: pl.DataFrame


def make_labels(run: TrainingRun) -> dict[str, int]:
    """Write ``run.labels(task)`` and ``run.times(task)`` for every task of the settings, and who was left out; a
    finished set with the same inputs is kept.

    A row: an eligible subject at one index day. ``index`` is k of t_k (1 is the newest day). See `task_times` for what
    the times hold, `binary_labels` for how the labels derive from them.

    Returns:
        Number of labels by task.

    Raises:
        VigilError: a subject's rows lie in two splits.
    """
    tasks = load_tasks(get_settings().tasks)
    folder = run.labels(tasks[0].name).parent
    inputs = _inputs(run, tasks)
    manifest = folder / "manifest.json"
    if manifest.exists() and read_json(manifest)["inputs"] == inputs:
        return dict(read_json(manifest)["counts"])
    counts, judged = {}, {}
    with new_directory(folder) as working:
        found = follow_up(run, tasks)
        write_json(working / FLOW, found.flow.to_dicts())
        for name, times in found.times.items():
            labels = binary_labels(times)
            labels.write_parquet(working / f"{name}.parquet")
            (working / "times").mkdir(exist_ok=True)
            times.write_parquet(working / "times" / f"{name}.parquet")
            counts[name], judged[name] = labels.height, evaluability(name, times)
            log.info("labels %s: %d rows, %d positive", name, labels.height, int(labels["boolean_value"].sum()))
            if judged[name].reason:
                log.warning("%s is not evaluable: %s", name, judged[name].reason)
        verdicts = {name: asdict(found) for name, found in judged.items()}
        write_json(working / "manifest.json", {"inputs": inputs, "counts": counts, "evaluability": verdicts})
    return counts


def read_labels(run: TrainingRun, task: str) -> pl.DataFrame:
    """The binary labels of one task, ``LABEL_SCHEMA``.

    Raises:
        VigilError: they were not made yet.
    """
    _check_made(run, task)
    return pl.read_parquet(run.labels(task))


def read_times(run: TrainingRun, task: str) -> pl.DataFrame:
    """Time to event of one task, ``TIMES_SCHEMA`` (see `task_times`).

    Raises:
        VigilError: they were not made yet.
    """
    _check_made(run, task)
    return pl.read_parquet(run.times(task))


def read_flow(run: TrainingRun) -> pl.DataFrame:
    """Who was asked and why not, ``FLOW_SCHEMA``; small counts are not suppressed.

    Raises:
        VigilError: the labels were not made yet.
    """
    path = run.path / "labels" / FLOW
    if not path.exists():
        raise VigilError(f"there are no labels in run {run.name}", "run `vigil cohorts labels` first")
    return pl.DataFrame(read_json(path), schema=FLOW_SCHEMA)


def read_evaluability(run: TrainingRun) -> dict[str, Evaluability]:
    """By task, whether the labels of a run can carry an evaluation, and if not why.

    Raises:
        VigilError: the labels were not made yet.
    """
    manifest = run.path / "labels" / "manifest.json"
    if not manifest.exists():
        raise VigilError(f"there are no labels in run {run.name}", "run `vigil cohorts labels` first")
    return {name: Evaluability.of(found) for name, found in read_json(manifest)["evaluability"].items()}


def task_times(run: TrainingRun, tasks: tuple[Task, ...]) -> dict[str, pl.DataFrame]:
    """Time to event of several tasks, in one pass over the log.

    The past of an index day is the view at that day, the future the view at the snapshot's day.

    Returns:
        By task, a row per eligible subject and index day, sorted by subject and prediction time (``TIMES_SCHEMA``):
        ``event``: an outcome fell into the label's window. ``observed_days``: days from the prediction time to the
        first such outcome, else to whatever ended observation first: death, the end of the record (the snapshot's
        day), the end of the window. ``censored``: "death" or "end of record" where one of them came first, else
        null. ``complete``: the whole window lies before the end of the record. ``before_birth``: the birth known
        today is later than the prediction time. Nobody is taken for lost: a record does not say who moved away.
    """
    return follow_up(run, tasks).times


def follow_up(run: TrainingRun, tasks: tuple[Task, ...]) -> FollowUp:
    """`task_times`, and who was left out."""
    shards = [_shard_times(run, tasks, shard) for shard in range(run.snapshot.shards)]
    found = {task.name: pl.concat([shard.times[task.name] for shard in shards]) for task in tasks}
    splits = _splits(found.values())
    flow = pl.concat([shard.flow for shard in shards]).group_by("task", "index", "split", "reason")
    rows = flow.agg(pl.col("rows").sum()).sort("task", "index", "split", "reason")
    times = {name: _finish(times, splits) for name, times in found.items()}
    return FollowUp(times, rows.select(pl.col(name).cast(kind) for name, kind in FLOW_SCHEMA.items()))


def binary_labels(times: pl.DataFrame) -> pl.DataFrame:
    """``LABEL_SCHEMA`` from ``TIMES_SCHEMA``: whether the outcome fell into the window.

    Who died without the outcome did not have it: false, as for a risk in the presence of death. An index day whose
    window is not over has no labels at all: its events are known before its non-events, and would be cases alone.
    """
    known = times.filter(pl.col("complete")).with_columns(boolean_value=pl.col("event"))
    return known.select(pl.col(name).cast(kind) for name, kind in LABEL_SCHEMA.items())


def _shard_times(run: TrainingRun, tasks: tuple[Task, ...], shard: int) -> FollowUp:
    """Times without the split, and the flow of a shard."""
    future, *pasts = views_at(run.snapshot, (run.as_of, *run.index_days), shard)
    scopes: dict[str, list[pl.DataFrame]] = {task.name: [] for task in tasks}
    flow: list[pl.DataFrame] = []
    for k, (day, past) in enumerate(zip(run.index_days, pasts, strict=True), start=1):
        at = pl.lit(prediction_time(day), dtype=pl.Datetime("us"))
        asked = eligible_all(past, day, tasks)
        splits = _splits([asked[tasks[0].name]])  # each holds every subject of the view
        for name, scope in asked.items():
            flow.append(_counted(scope, splits, name, k))
            rows = scope.filter(pl.col("eligible")).select("subject_id", prediction_time=at)
            scopes[name].append(rows.with_columns(index=pl.lit(k, dtype=pl.Int8)))
    wanted = [task.target for task in tasks] + [condition.predicate for task in tasks for condition in task.gap]
    matches, vital = Matches(future, wanted), _births_and_deaths(future)
    times = {task.name: _follow(task, pl.concat(scopes[task.name]), matches, vital, run.as_of) for task in tasks}
    return FollowUp(times, pl.concat(flow))


def _counted(scope: pl.DataFrame, splits: pl.DataFrame, task: str, index: int) -> pl.DataFrame:
    """Subjects of an index day by split and reason."""
    counts = scope.join(splits, on="subject_id", how="left").group_by("split", "reason").agg(rows=pl.len())
    return counts.with_columns(task=pl.lit(task), index=pl.lit(index, dtype=pl.Int8))


def _births_and_deaths(view: pl.DataFrame) -> pl.DataFrame:
    """``subject_id``, ``birth``, ``death`` of those who have one."""
    vital = view.filter(pl.col("code").is_in([BIRTH, DEATH]))
    when = [pl.col("time").filter(pl.col("code") == code).min() for code in (BIRTH, DEATH)]
    return vital.group_by("subject_id").agg(when[0].alias("birth"), when[1].alias("death"))


def _follow(task: Task, rows: pl.DataFrame, matches: Matches, vital: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """What became of ``rows`` (subject_id, prediction_time, index)."""
    at = pl.col("prediction_time")
    begin, end = at + timedelta(days=task.delay_days), at + timedelta(days=task.horizon_days)
    rows = rows.with_row_index("row")
    for condition in task.gap:
        inside = _inside(rows, matches.of(condition.predicate), at, begin)
        rows = rows.filter(holds(condition, inside.select(subject_id="row"), rows["row"]))
    first = _inside(rows, matches.of(task.target), begin, end).group_by("row").agg(outcome=pl.col("time").min())
    record_end = pl.lit(prediction_time(as_of), dtype=pl.Datetime("us"))
    rows = rows.join(first, on="row", how="left").join(vital, on="subject_id", how="left")
    event, died = pl.col("outcome").is_not_null(), pl.col("death") < pl.min_horizontal(end, record_end)
    lost = pl.when(died).then(pl.max_horizontal("death", at))  # a death before it may become known after it
    stop = pl.coalesce("outcome", lost, pl.min_horizontal(end, record_end))
    return rows.select(
        "subject_id",
        "prediction_time",
        event=event,
        observed_days=(stop - at).dt.total_microseconds() / timedelta(days=1).total_seconds() / 1e6,
        censored=pl.when(event)
        .then(pl.lit(None, dtype=pl.String))
        .when(died)
        .then(pl.lit(DIED))
        .when(end > record_end)
        .then(pl.lit(END_OF_RECORD)),
        complete=end <= record_end,
        before_birth=(pl.col("birth") > at).fill_null(False),
        index="index",
    )


def _inside(rows: pl.DataFrame, events: pl.DataFrame, begin: pl.Expr, end: pl.Expr) -> pl.DataFrame:
    """``row``, ``time`` of the events of each row's subject in [begin, end)."""
    both = rows.join(events, on="subject_id", how="inner")
    return both.filter((pl.col("time") >= begin) & (pl.col("time") < end)).select("row", "time")


def _splits(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """``subject_id``, ``split`` of every subject of some frames."""
    subjects = pl.concat([frame.select("subject_id") for frame in frames]).unique()["subject_id"].to_list()
    splits = split_all(subjects, get_settings().split_salt)
    return pl.DataFrame({"subject_id": list(splits), "split": list(splits.values())}, schema=SPLIT_SCHEMA)


def _finish(times: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    frame = times.join(splits, on="subject_id", how="left")
    check_disjoint(frame)
    return frame.select(pl.col(name).cast(kind) for name, kind in TIMES_SCHEMA.items()).sort(
        "subject_id", "prediction_time"
    )


def _inputs(run: TrainingRun, tasks: tuple[Task, ...]) -> dict[str, object]:
    return {
        "format": FORMAT,
        "snapshot": run.snapshot.digest,
        "index_days": [str(day) for day in run.index_days],
        "tasks": {task.name: sha256_bytes(task.path.read_bytes()) for task in tasks},
        "split_salt": sha256_bytes(get_settings().split_salt.encode()),
    }


def _check_made(run: TrainingRun, task: str) -> None:
    if not run.labels(task).exists():
        raise VigilError(f"there are no labels of '{task}' in run {run.name}", "run `vigil cohorts labels` first")
