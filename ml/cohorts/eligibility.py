"""Who is in scope on a day: one rule for labels and for scoring."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from ml.cohorts.tasks import Task
from ml.extraction.schema import BIRTH, DEATH

ADULT_YEARS = 18
LOOKBACK_DAYS = 730
NOT_CLINICAL = rf"^({BIRTH}$|{DEATH}$|GENDER//|RACE//|ETHNICITY//|SITE//)"

NO_BIRTH = "no birth date"
DECEASED = "deceased"
UNDER_AGE = "under 18"
NO_EVENT = "no event in 730 days"
PRIOR_OUTCOME = "prior outcome"


def prediction_time(day: date) -> datetime:
    """Midnight at the end of an index day, UTC without zone."""
    return datetime.combine(day, datetime.min.time(), UTC).replace(tzinfo=None) + timedelta(days=1)


def matching_codes(view: pl.DataFrame, pattern: str) -> pl.Series:
    """The distinct codes of a view that match a regular expression: cheaper than matching every row."""
    codes = view["code"].unique()
    return codes.filter(codes.str.contains(pattern))


def eligible(view: pl.DataFrame, day: date, task: Task) -> pl.DataFrame:
    """Whether each subject of a view is in scope of a task at the end of a day, and if not why.

    Args:
        view: events as of ``day`` (EVENT_SCHEMA); nothing recorded later may be in it.
        day: the index day.
        task: what is to be predicted.

    Returns:
        ``subject_id`` int64, ``eligible`` bool, ``reason`` string (null where eligible), sorted by subject.
    """
    return _with_prior(_facts(view, day), view, task)


def eligible_all(view: pl.DataFrame, day: date, tasks: tuple[Task, ...]) -> dict[str, pl.DataFrame]:
    """``eligible`` for several tasks; what they share is computed once."""
    facts = _facts(view, day)
    return {task.name: _with_prior(facts, view, task) for task in tasks}


def _facts(view: pl.DataFrame, day: date) -> pl.DataFrame:
    """Per subject the first reason that holds for any task, null where there is none."""
    at = prediction_time(day)
    other = matching_codes(view, NOT_CLINICAL)  # few: membership in them is quick to test
    recent = (pl.col("time") < at) & (pl.col("time") >= at - timedelta(days=LOOKBACK_DAYS))
    marks = view.select(
        "subject_id",
        birth=pl.when(pl.col("code") == BIRTH).then(pl.col("time")),
        dead=pl.col("code") == DEATH,
        seen=recent & ~pl.col("code").is_in(other.implode()),
    )
    facts = marks.group_by("subject_id").agg(pl.col("birth").min(), pl.col("dead").any(), pl.col("seen").any())
    reason = (
        pl.when(pl.col("birth").is_null())
        .then(pl.lit(NO_BIRTH))
        .when(pl.col("dead"))
        .then(pl.lit(DECEASED))
        .when(pl.col("birth").dt.offset_by(f"{ADULT_YEARS}y") > at)
        .then(pl.lit(UNDER_AGE))
        .when(~pl.col("seen"))
        .then(pl.lit(NO_EVENT))
    )
    return facts.select("subject_id", reason=reason).sort("subject_id")


def _with_prior(facts: pl.DataFrame, view: pl.DataFrame, task: Task) -> pl.DataFrame:
    reason = pl.col("reason")
    if task.excludes_prior:
        codes = matching_codes(view, task.outcome)
        prior = view.filter(pl.col("code").is_in(codes.implode()))["subject_id"].unique()
        had = pl.col("subject_id").is_in(prior.implode())
        reason = pl.coalesce(reason, pl.when(had).then(pl.lit(PRIOR_OUTCOME)))
    return facts.select("subject_id", eligible=reason.is_null(), reason=reason)
