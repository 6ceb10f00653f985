"""Surveillance of outcomes: once a published score's horizon has passed, what happened is laid beside what was said.

What was said is read from the releases, what happened from the newest snapshot by the code that makes training labels.
Of each month and model version the first published day is judged: nightly scores of one patient hardly differ, and so
each patient counts once. A score of a day before the model's own training snapshot (a backfill) is no prediction and is
not counted. A month is judged again as late records come in, until it is ``SETTLED`` days past its horizon.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from ml.cohorts import TrainingRun, load_task, prediction_time, task_names, task_times
from ml.common.db import connect, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.evaluation.results import MEDBERT, Estimate, Evaluation
from ml.extraction import newest_snapshot
from ml.extraction.snapshot import Snapshot
from ml.publication.fences import SQL
from ml.publication.pseudonyms import pseudonymise
from ml.publication.surveillance_rows import (
    CALIBRATION,
    DISCRIMINATION,
    Metrics,
    Watched,
    read_watched,
    standing,
    write_watched,
)
from ml.settings import Role, Settings, get_settings

log = logging.getLogger(__name__)
SETTLED = timedelta(days=90)  # after the horizon's end: what is recorded later still comes too late
AGAIN = timedelta(days=28)  # between two looks at a month that is not settled


@dataclass(frozen=True)
class Answer:
    """A published day that is judged: the first of its month by a version."""

    as_of: date
    release_id: str
    model_version: int

    @property
    def month(self) -> date:
        return self.as_of.replace(day=1)


@dataclass(frozen=True)
class Due:
    """An answer's outcome whose horizon has passed."""

    answer: Answer
    outcome: str
    horizon_days: int


@dataclass(frozen=True)
class Watch:
    """What a round found.

    Attributes:
        judged: months × versions × outcomes judged now. rows: there are.
        alerts: sentences on those that stand.
        over: whether the horizon of any published score has passed.
    """

    judged: int
    rows: int
    alerts: tuple[str, ...]
    over: bool

    def summary(self) -> dict[str, Any]:
        """Small JSON for a task's log and XCom."""
        return {"judged": self.judged, "rows": self.rows, "alerts": list(self.alerts)}


def watch_outcomes(*, again: bool = False) -> Watch:
    """Judge what is due and keep it in ``published.outcome_surveillance``. Idempotent; the order of days is no matter.

    Args:
        again: judge every month, also those that are settled (after a change of bounds).

    Raises:
        NotFoundError: there is no snapshot.
        ConfigError: no key for pseudonyms.
        TrackingError: MLflow, which has the evaluations behind the approvals, does not answer.
    """
    snapshot = newest_snapshot()
    days, held = _published()
    answers = first_of_months(days, _trained()) if days else []
    over = [due for answer in answers for due in _over(answer, snapshot.as_of)]
    due = [one for one in over if again or is_due(one, held.get(_key(one)), snapshot.as_of)]
    rows = _judge(due, snapshot) if due else []
    write_watched(rows)
    for row in rows:
        if row.alerts:
            log.warning("published risks left their bounds: %s", row.sentence())
    with connect(Role.PUBLISH, readonly=True) as connection:
        kept = read_watched(connection)
    return Watch(len(rows), len(kept), tuple(row.sentence() for row in standing(kept)), bool(over))


def _key(due: Due) -> tuple[int, date, str]:
    return due.answer.model_version, due.answer.month, due.outcome


def _published() -> tuple[list[Answer], dict[tuple[int, date, str], Watched]]:
    """Days with published scores, and what was judged before."""
    with connect(Role.PUBLISH, readonly=True) as connection:
        days = [Answer(*row) for row in fetch(connection, (SQL / "published_risk_days.sql").read_text())]
        return days, {row.key: row for row in read_watched(connection)}


def _trained() -> dict[int, date]:
    """Day of the snapshot that each registered version learnt from."""
    from ml.registry.tracking import all_versions, connected

    with connected() as client:
        return {model.version: date.fromisoformat(model.name[:10]) for model in all_versions(client)}


def _approved(version: int) -> Evaluation | None:
    """The evaluation that a version was let through on; None where it is not what was registered."""
    from ml.registry.review import approved_evaluation

    try:
        return approved_evaluation(version)
    except (NotFoundError, RefusedError) as error:
        log.warning("version %d is watched without its AUROC at approval: %s", version, error.cause)
        return None


def first_of_months(days: Sequence[Answer], trained: dict[int, date]) -> list[Answer]:
    """By month and version, the first published day that does not lie before the version's training snapshot."""
    first: dict[tuple[date, int], Answer] = {}
    for answer in sorted(days, key=lambda one: one.as_of):
        if answer.model_version in trained and answer.as_of >= trained[answer.model_version]:
            first.setdefault((answer.month, answer.model_version), answer)
    return list(first.values())


def _over(answer: Answer, today: date) -> list[Due]:
    """Outcomes of a release whose last day lies within the record."""
    with connect(Role.PUBLISH, readonly=True) as connection:
        query = (SQL / "released_outcomes.sql").read_text()
        outcomes = fetch(connection, query, {"release_id": answer.release_id})
    found = [Due(answer, outcome, horizon) for outcome, horizon in outcomes]
    return [due for due in found if answer.as_of + timedelta(days=due.horizon_days) <= today]


def is_due(due: Due, held: Watched | None, today: date) -> bool:
    """Whether a month is to be judged, now or again."""
    if held is None or held.release_id != due.answer.release_id:
        return True
    settled = due.answer.as_of + timedelta(days=due.horizon_days) + SETTLED
    return held.snapshot_as_of < settled and today >= min(held.snapshot_as_of + AGAIN, settled)


def _judge(due: Sequence[Due], snapshot: Snapshot) -> list[Watched]:
    """One pass over the log for all days, then one release after the other."""
    approved = {version: _approved(version) for version in sorted({one.answer.model_version for one in due})}
    happened = _happened(due, snapshot)
    by_answer: dict[Answer, list[Due]] = defaultdict(list)
    for one in due:
        by_answer[one.answer].append(one)
    rows = []
    for answer, outcomes in by_answer.items():
        said = _said(answer, [one.outcome for one in outcomes])
        evaluation = approved[answer.model_version]
        for one in outcomes:
            task = evaluation.tasks.get(one.outcome) if evaluation else None
            before = task.all_days[MEDBERT].auroc if task and MEDBERT in task.all_days else None
            labels = happened.get(one.outcome)
            rows.append(_row(one, said.filter(pl.col("outcome") == one.outcome), labels, snapshot, before))
    return rows


def _happened(due: Sequence[Due], snapshot: Snapshot) -> dict[str, pl.DataFrame]:
    """By outcome: ``pseudonym``, ``prediction_time``, ``event`` of everybody in scope whose window is over.

    An outcome that is no task any more, or has another horizon now, is left out.
    """
    known = set(task_names())
    wanted = {(one.outcome, one.horizon_days) for one in due if one.outcome in known}
    tasks = [load_task(name) for name, horizon in sorted(wanted) if load_task(name).horizon_days == horizon]
    if not tasks:
        return {}
    days = tuple(sorted({one.answer.as_of for one in due}, reverse=True))
    run = TrainingRun(snapshot, days, get_settings().data_dir)  # nothing is written there
    found = {}
    for name, times in task_times(run, tuple({task.name: task for task in tasks}.values())).items():
        complete = times.filter(pl.col("complete"))
        names = pl.Series("pseudonym", pseudonymise(pa.chunked_array([complete["subject_id"].to_arrow()])).to_pylist())
        found[name] = complete.select("prediction_time", "event").with_columns(names.cast(pl.String))
    return found


def _said(answer: Answer, outcomes: list[str]) -> pl.DataFrame:
    """``pseudonym``, ``outcome``, ``risk`` of everybody in scope."""
    values = {"release_id": answer.release_id, "outcomes": outcomes}
    with connect(Role.PUBLISH, readonly=True) as connection:
        rows = fetch(connection, (SQL / "released_risks.sql").read_text(), values)
    schema = {"pseudonym": pl.String, "outcome": pl.String, "risk": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("pseudonym")


def _row(
    due: Due, said: pl.DataFrame, happened: pl.DataFrame | None, snapshot: Snapshot, before: Estimate | None
) -> Watched:
    settings, answer = get_settings(), due.answer
    facts = (settings.model_name, answer.model_version, answer.month, due.outcome, due.horizon_days)
    place = (answer.as_of, answer.release_id, snapshot.as_of)
    if happened is None:
        return Watched(*facts, *place, None, None, reason="the task is gone, or has another horizon now")
    at = pl.lit(prediction_time(answer.as_of), dtype=pl.Datetime("us"))
    rows = said.join(happened.filter(pl.col("prediction_time") == at), on="pseudonym", how="inner").sort("pseudonym")
    y, p = rows["event"].to_numpy(), rows["risk"].to_numpy()
    metrics, reason = judge_scores(y, p)
    return Watched(
        *facts,
        *place,
        *told_counts(y, len(said) - len(y), settings.min_cell),
        metrics=metrics,
        approved_auroc=before.value if before else None,
        alerts=alerts_of(metrics, before, settings),
        reason=reason,
    )


def told_counts(y: NDArray[np.bool_], unmatched: int, least: int) -> tuple[int | None, int | None]:
    """(patients, events) as they may be told.

    Args:
        unmatched: patients with a score but without a label (they had the outcome before it counts, or were erased):
            where they are few, the number of patients is not told, for the number of scores was.
    """

    def small(count: int) -> bool:
        return 0 < count < least

    n, events = len(y), int(y.sum())
    return (None if small(n) or small(unmatched) else n, None if small(events) or small(n - events) else events)


def judge_scores(y: NDArray[np.bool_], p: NDArray[np.float64]) -> tuple[Metrics, str | None]:
    """Metrics with bootstrap intervals, one row a patient; or the reason why there are none."""
    from ml.evaluation.bootstrap import patient_counts
    from ml.evaluation.intervals import estimate, not_evaluable
    from ml.evaluation.metrics import Scored, all_metrics

    patient = np.arange(len(y))
    reason = not_evaluable(y, patient)
    if reason is not None:
        return Metrics(), reason.replace("held-out ", "")
    settings = get_settings()
    counts = patient_counts(len(y), settings.bootstrap, settings.seed)
    draws = all_metrics(Scored(y, p, patient), counts)
    observed, expected = counts.sums(np.stack([y.astype(np.float64), p], axis=1), patient).T
    ratio = np.divide(observed, expected, out=np.full(len(observed), np.nan), where=expected > 0)
    metrics = Metrics(
        auroc=estimate(draws["auroc"]),
        brier=estimate(draws["brier"]),
        slope=estimate(draws["calibration_slope"]),
        intercept=estimate(draws["calibration_intercept"]),
        observed_expected=estimate(ratio),
    )
    return metrics, None


def alerts_of(found: Metrics, before: Estimate | None, settings: Settings) -> tuple[str, ...]:
    """Which bounds are left.

    Calibration: the interval of observed over expected events lies wholly outside 1/ratio … ratio: with fifty
    events, chance alone takes it a quarter from 1 in one month of twenty.
    Discrimination: the AUROC's upper bound lies below the one at approval by more than the margin.
    """
    alerts = []
    ratio, auroc = found.observed_expected, found.auroc
    bound = settings.surveillance_ratio
    if ratio and (ratio.low > bound or ratio.high < 1 / bound):
        alerts.append(CALIBRATION)
    if auroc and before and auroc.high < before.value - settings.surveillance_auroc:
        alerts.append(DISCRIMINATION)
    return tuple(alerts)
