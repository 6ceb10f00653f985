"""Who is in scope on a day: one rule for labels and for scoring."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl

from ml.cohorts.aces import Condition
from ml.cohorts.matching import Matches
from ml.cohorts.tasks import Scope, Task
from ml.extraction.schema import BIRTH, DEATH

NOT_CLINICAL = rf"^({BIRTH}$|{DEATH}$|GENDER//|RACE//|ETHNICITY//|SITE//)"

NO_BIRTH = "no birth date"
DECEASED = "deceased"
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
        view: events as of ``day`` (``subject_id``, ``time``, ``code``, ``numeric_value`` of EVENT_SCHEMA); nothing
            recorded later may be in it.
        day: the index day.
        task: what is to be predicted.

    Returns:
        ``subject_id`` int64, ``eligible`` bool, ``reason`` string (null where eligible), sorted by subject.
    """
    return eligible_all(view, day, (task,))[task.name]


def eligible_all(view: pl.DataFrame, day: date, tasks: tuple[Task, ...]) -> dict[str, pl.DataFrame]:
    """``eligible`` for several tasks; what they share is computed once."""
    at, facts = prediction_time(day), _facts(view, day)
    matches = Matches(view, [condition.predicate for task in tasks for condition in task.past])
    shared: dict[tuple[int, int, int], pl.Series] = {}
    broken: dict[Condition, pl.Series] = {}
    found = {}
    for task in tasks:
        key = (task.scope.minimum_age, task.scope.look_back_days, task.scope.minimum_history_days)
        if key not in shared:
            shared[key] = facts.select(reason=_reason(task.scope, at))["reason"]
        reasons = [shared[key].alias("0")]
        for number, condition in enumerate(task.past, 1):
            if condition not in broken:
                broken[condition] = _breaks(condition, matches, facts["subject_id"], at)
            words = PRIOR_OUTCOME if task.is_prior(condition) else f"outside the population: {condition.window}"
            reasons.append(pl.select(pl.when(broken[condition]).then(pl.lit(words)).alias(str(number))).to_series())
        reason = pl.select(pl.coalesce(*reasons)).to_series()
        found[task.name] = pl.DataFrame(
            {"subject_id": facts["subject_id"], "eligible": reason.is_null(), "reason": reason}
        )
    return found


def _facts(view: pl.DataFrame, day: date) -> pl.DataFrame:
    """Per subject, sorted: birth, whether dead, and the first and last clinical event before the prediction time."""
    other = matching_codes(view, NOT_CLINICAL)  # few: membership in them is quick to test
    clinical = (pl.col("time") < prediction_time(day)) & ~pl.col("code").is_in(other.implode())
    marks = view.select(
        "subject_id",
        birth=pl.when(pl.col("code") == BIRTH).then(pl.col("time")),
        dead=pl.col("code") == DEATH,
        seen=pl.when(clinical).then(pl.col("time")),
    )
    return (
        marks.group_by("subject_id")
        .agg(pl.col("birth").min(), pl.col("dead").any(), first=pl.col("seen").min(), last=pl.col("seen").max())
        .sort("subject_id")
    )


def _reason(scope: Scope, at: datetime) -> pl.Expr:
    """Over `_facts`: the first reason that holds whatever the outcome, null where there is none."""
    old_enough = pl.col("birth").dt.offset_by(f"{scope.minimum_age}y") <= at
    seen = pl.col("last") >= at - timedelta(days=scope.look_back_days)
    known = pl.col("first") <= at - timedelta(days=scope.minimum_history_days)
    return (
        pl.when(pl.col("birth").is_null())
        .then(pl.lit(NO_BIRTH))
        .when(pl.col("dead"))
        .then(pl.lit(DECEASED))
        .when(~old_enough)
        .then(pl.lit(f"under {scope.minimum_age}"))
        .when(~seen.fill_null(False))
        .then(pl.lit(f"no event in {scope.look_back_days} days"))
        .when(~known.fill_null(False))
        .then(pl.lit(f"history shorter than {scope.minimum_history_days} days"))
    )


def _breaks(condition: Condition, matches: Matches, subjects: pl.Series, at: datetime) -> pl.Series:
    """Whether each subject breaks a condition on the past.

    A window without a beginning takes all that the view shows: static facts, and what bears a later time too, such as
    an outcome that was entered with a date to come.
    """
    events = matches.of(condition.predicate)
    if condition.days is not None:
        begin = at - timedelta(days=condition.days)
        events = events.filter((pl.col("time") >= begin) & (pl.col("time") < at))
    return ~holds(condition, events, subjects)


def holds(condition: Condition, events: pl.DataFrame, subjects: pl.Series) -> pl.Series:
    """Whether the number of events of each subject is within a condition's bounds.

    Args:
        events: ``subject_id`` of each event that counts.
        subjects: whom to answer for, in this order.
    """
    counts = events.group_by("subject_id").agg(n=pl.len())
    n = pl.DataFrame({"subject_id": subjects}).join(counts, on="subject_id", how="left", maintain_order="left")["n"]
    n = n.fill_null(0)
    least = n >= condition.least if condition.least is not None else n >= 0
    return least & (n <= condition.most) if condition.most is not None else least
