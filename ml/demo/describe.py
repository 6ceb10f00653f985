"""What the demo hospital is like, measured in its own records: incidences, and how well the truth can predict them.

The cohort is the one of docs/architecture.md: at an index day t, the view as of t shows a birth, no death, age 18 or
more, a clinical event in the last 730 days, and no prior outcome; outcomes are read from the view as of today.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from psycopg2 import sql

from ml.common.db import connect
from ml.demo.ceiling import HORIZON, OUTCOMES, Truth, read_truth, true_risks
from ml.demo.load import status
from ml.demo.process import DEATH, day_of, load_process
from ml.settings import Role, get_settings

CLINICAL = ("condition", "drug", "measurement")
QUERIES = {
    "condition": "select condition_occurrence_id as id, person_id, left(condition_source_value, 3) as code,"
    " condition_start_datetime as time, recorded_at, removed from condition_occurrence",
    "drug": "select drug_exposure_id as id, person_id, drug_source_value as code,"
    " drug_exposure_start_datetime as time, recorded_at, removed from drug_exposure",
    "measurement": "select measurement_id as id, person_id, measurement_source_value as code,"
    " measurement_datetime as time, recorded_at, removed from measurement",
    "death": "select person_id as id, person_id, 'death' as code, death_datetime as time, recorded_at, removed"
    " from death",
    "person": "select person_id as id, person_id, gender_source_value as code, birth_datetime as time, recorded_at,"
    " removed from person",
}


@dataclass(frozen=True)
class Outcome:
    """One outcome over the index days.

    Attributes:
        rows: eligible patients, summed over the index days. events: of them, with the outcome within a year.
        ceiling: AUROC of the risk given the true state, recorded or not. age_sex: AUROC of a logistic regression on
            age, its square and sex, fitted to the very same rows. expected: sum of the risks given the true state.
    """

    task: str
    rows: int
    events: int
    incidence: float
    ceiling: float
    age_sex: float
    expected: float


def describe(index_days: int = 5) -> list[Outcome]:
    """Measure every outcome at the index days one year apart, the newest a year before today.

    Raises:
        NotFoundError: the demo hospital is not loaded.
    """
    now = status().today
    truth = read_truth()
    events = {name: _read(query) for name, query in QUERIES.items()}
    days = [now - timedelta(days=HORIZON * k) for k in range(1, index_days + 1)]
    cohorts = [(day, *_cohort(events, day, now)) for day in days]
    return [_measure(truth, task, cohorts) for task in OUTCOMES]


def _read(query: str) -> pl.DataFrame:
    buffer = BytesIO()
    with connect(Role.EXTRACT, readonly=True) as ehr, ehr.cursor() as cursor:
        cursor.execute(sql.SQL("set local search_path to {}").format(sql.Identifier(get_settings().source_schema)))
        cursor.copy_expert(sql.SQL("copy ({}) to stdout with (format csv, header)").format(sql.SQL(query)), buffer)
    buffer.seek(0)
    frame = pl.read_csv(buffer, infer_schema_length=0)
    moment = pl.col("time", "recorded_at").str.to_datetime()
    return frame.with_columns(pl.col("id", "person_id").cast(pl.Int64), moment, pl.col("removed") == "t")


def _view(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    """Rows as known at the end of a day: the latest version of each id, unless it is a removal."""
    end = datetime.combine(day + timedelta(days=1), datetime.min.time())
    known = frame.filter(pl.col("recorded_at") < end).sort("recorded_at")
    return known.unique("id", keep="last").filter(~pl.col("removed"))


def _cohort(events: dict[str, pl.DataFrame], day: date, now: date) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """(eligible people, outcome events before, outcome events within the horizon) of an index day."""
    start = datetime.combine(day + timedelta(days=1), datetime.min.time())
    past = {name: _view(frame, day).filter(pl.col("time") < start) for name, frame in events.items()}
    recent = pl.concat([past[name].filter(pl.col("time") >= start - timedelta(days=730)) for name in CLINICAL])
    people = past["person"].with_columns(age=(pl.lit(start) - pl.col("time")).dt.total_days() / 365.25)
    eligible = people.filter(
        (pl.col("age") >= 18)
        & pl.col("person_id").is_in(recent["person_id"].unique().implode())
        & ~pl.col("person_id").is_in(past["death"]["person_id"].implode())
    )
    after = pl.concat([_view(events[name], now) for name in ("condition", "death")])
    after = after.filter((pl.col("time") > start) & (pl.col("time") <= start + timedelta(days=HORIZON)))
    return eligible.sort("person_id"), past["condition"], after


def _measure(truth: Truth, task: str, cohorts: list[tuple[date, pl.DataFrame, pl.DataFrame, pl.DataFrame]]) -> Outcome:
    risks, features, labels = [], [], []
    for day, eligible, past, after in cohorts:
        before = past.filter(pl.col("code").is_in(OUTCOMES[task]))["person_id"]
        people = (
            eligible if OUTCOMES[task] == (DEATH,) else eligible.filter(~pl.col("person_id").is_in(before.implode()))
        )
        hit = after.filter(pl.col("code").is_in(OUTCOMES[task]))["person_id"]
        labels.append(people["person_id"].is_in(hit.implode()).to_numpy())
        age, sex = people["age"].to_numpy(), (people["code"] == "F").to_numpy().astype(float)
        features.append(np.column_stack([age, age**2, sex]))
        first = np.full(len(people), day_of(day) + 1)
        risks.append(true_risks(truth, task, people["person_id"].to_numpy(), first))
    risk, x, y = np.concatenate(risks), np.concatenate(features), np.concatenate(labels)
    return Outcome(
        task=task,
        rows=len(y),
        events=int(y.sum()),
        incidence=float(y.mean()),
        ceiling=_auroc(y, risk),
        age_sex=_auroc(y, _logistic(x, y)),
        expected=float(risk.sum()),
    )


@dataclass(frozen=True)
class Visible:
    """What the record shows of the planted disease effects.

    Attributes:
        effects: planted disease effects. common: of them, with ``least`` recorded patients on both sides and
            ``together`` in whom the source was recorded before the target.
        patients: recorded patients by category, as of today.
    """

    effects: int
    common: int
    patients: dict[str, int]


def visible_effects(least: int = 150, together: int = 20) -> Visible:
    """Count the planted effects between diseases common enough to be seen in this hospital's record."""
    now = status().today
    first = _view(_read(QUERIES["condition"]), now).group_by("person_id", "code").agg(pl.col("time").min())
    patients = dict(first.group_by("code").len().sort("code").iter_rows())
    pairs = first.join(first, on="person_id", suffix="_after").filter(pl.col("time") < pl.col("time_after"))
    ordered = {(a, b): n for a, b, n in pairs.group_by("code", "code_after").len().iter_rows()}
    planted = [e for e in load_process().effects if e.kind == "effect" and e.target != DEATH]
    common = [
        e
        for e in planted
        if min(patients.get(e.source, 0), patients.get(e.target, 0)) >= least
        and ordered.get((e.source, e.target), 0) >= together
    ]
    return Visible(len(planted), len(common), patients)


def _auroc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else float("nan")


def _logistic(features: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import scale

    x = scale(features)
    fitted = LogisticRegression(max_iter=500).fit(x, labels) if 0 < labels.sum() < len(labels) else None
    return x[:, 0] if fitted is None else np.asarray(fitted.predict_proba(x)[:, 1])


def as_lines(outcomes: list[Outcome]) -> Iterator[str]:
    """A Markdown table."""
    yield "| outcome | eligible | events | one-year incidence | ceiling AUROC | age and sex AUROC | expected events |"
    yield "|---|---|---|---|---|---|---|"
    for o in outcomes:
        yield (
            f"| {o.task} | {o.rows:,} | {o.events:,} | {o.incidence:.2%} | {o.ceiling:.3f} | {o.age_sex:.3f}"
            f" | {o.expected:,.0f} |"
        )
