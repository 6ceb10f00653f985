"""Vigil reads task files in one pass over the events; ACES itself is the reference that says what they mean."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.cohorts import Task, eligible_all, load_task, load_tasks, open_run, task_names, task_times
from ml.cohorts.aces import INDEX_CODE
from ml.cohorts.eligibility import PRIOR_OUTCOME
from ml.extraction import read_view
from tests.ml.synthetic_log import END, as_events, commit, deployment

DAY = END - timedelta(days=365)
AT = datetime.combine(DAY, datetime.min.time()) + timedelta(days=1)
OFFSETS = (-900, -366, -281, -280, -279, -31, -30, -29, -3, -2, -1, 0, 1, 2, 3, 4, 6, 7, 8, 29, 30, 31, 279, 280, 364)
CODES = [
    *("ICD10CM//I50.9", "ICD9CM//428.0", "ICD10CM//I63.9", "ICD10CM//E11.9", "ICD9CM//250.00", "ICD10CM//G30.9"),
    *(
        "ICD10CM//T78.2XXA",
        "ICD10CM//I48.91",
        "ICD10CM//C44.91",
        "ICD10CM//C50.911",
        "ICD10CM//C18.7",
        "ICD10CM//C34.90",
    ),
    *("ICD10CM//C25.9", "ICD10CM//F32.9", "ICD10CM//K52.9", "ICD10CM//K92.2", "ICD10CM//I21.4", "ICD10CM//I25.2"),
    *("ICD10CM//M87.051", "ATC//N02AA01", "ATC//A10BA02", "ATC//A07DA03", "ICD10CM//J18.9", "ICD10CM//F20.9"),
    *("ICD10CM//G47.33", "ICD10CM//A41.9", "ICD10CM//Z34.81", "ICD10CM//O80", "ICD10CM//O36.5110", "ICD10CM//O36.60X0"),
    *("ICD10CM//O60.14X0", "VISIT//inpatient", "LOINC//4548-4", "ICD10CM//I10"),
]
EVERYTHING = """
description: all that a task file may say
patient_demographics:
  female: {code: GENDER//F}
predicates:
  index_day: {code: VIGIL//INDEX_DAY}
  sick: {code: {any: [ICD10CM//I50.9, ICD10CM//I63.9]}}
  raised: {code: LOINC//4548-4, value_min: 7, value_max: 8, value_max_inclusive: true}
  middle: {code: LOINC//4548-4, value_min: 6.5, value_min_inclusive: true, value_max: 7}
  outcome: {expr: 'or(sick, raised, middle)'}
  drug: {code: {regex: '^ATC//'}}
trigger: index_day
windows:
  treated: {start: end - 30d, end: trigger, start_inclusive: true, end_inclusive: false, has: {drug: "(1, 3)"}}
  history: {start: null, end: trigger, start_inclusive: true, end_inclusive: false, has: {outcome: "(None, 2)"}}
  wait:
    start: trigger
    end: start + 3d
    start_inclusive: true
    end_inclusive: false
    index_timestamp: start
    has: {outcome: "(None, 0)", drug: "(None, 1)"}
  target: {start: wait.end, end: start + 28d, start_inclusive: true, end_inclusive: false, label: outcome}
"""


def random_events(seed: int, people: int, each: int, codes: list[str]) -> pl.DataFrame:
    """Events crowded around the edges of the tasks' windows, of women and men of 65 with a history."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    hours = rng.choice([0.0, 1 / 3600, 10.0], who.size)  # a date alone falls on its first moment
    days = rng.choice(np.array(OFFSETS), who.size)
    rows = [
        (int(one), str(code), AT + timedelta(days=int(day), hours=float(hour)), float(value))
        for one, code, day, hour, value in zip(
            who, rng.choice(codes, who.size), days, hours, rng.choice([6.4, 6.5, 7, 8, 8.1], who.size), strict=True
        )
    ]
    for one in range(people):
        rows += [
            (one, "MEDS_BIRTH", datetime(1958, 5, 1), 0.0),
            (one, "GENDER//F" if rng.random() < 0.5 else "GENDER//M", None, 0.0),  # type: ignore[list-item]
            *((one, "ICD10CM//I10", AT - timedelta(days=day, hours=1), 0.0) for day in (10, 1500)),
        ]
    kinds = {"who": pl.Int64, "code": pl.String, "time": pl.Datetime("us"), "value": pl.Float64}
    return as_events(pl.DataFrame(rows, schema=kinds, orient="row"))


def by_aces(task: Task, events: pl.DataFrame, subjects: list[int], path: Path) -> dict[int, bool]:
    """The labels of some subjects at the prediction time, as ACES gives them."""
    from aces.config import TaskExtractorConfig
    from aces.predicates import get_predicates_df
    from aces.query import query
    from omegaconf import DictConfig

    logging.getLogger("aces").setLevel(logging.ERROR)
    columns = ["subject_id", "time", "code", "numeric_value"]
    index = pl.DataFrame({"subject_id": subjects}, schema={"subject_id": pl.Int64}).with_columns(
        time=pl.lit(AT), code=pl.lit(INDEX_CODE), numeric_value=pl.lit(None, dtype=pl.Float32)
    )
    known = events.select(columns).filter(pl.col("subject_id").is_in(subjects))
    pl.concat([known, index.select(columns)]).sort("subject_id", "time", nulls_last=False).write_parquet(path)
    config = TaskExtractorConfig.load(task.path)
    found = query(config, get_predicates_df(config, DictConfig({"path": str(path), "standard": "meds"})))
    return {} if found.is_empty() else dict(found.select("subject_id", pl.col("label") > 0).iter_rows())


def compare(home: Path, seed: int, tasks: tuple[Task, ...], people: int, each: int, codes: list[str]) -> list[bool]:
    """Fail where Vigil and ACES differ on a subject; all labels."""
    with deployment(home, index_days="2", index_step="365"):
        commit(random_events(seed, people, each, codes), shards=1)
        run = open_run()
        future, past = read_view(run.snapshot, END, 0), read_view(run.snapshot, DAY, 0)
        times, scopes, labels = task_times(run, tasks), eligible_all(past, DAY, tasks), []
        for task in tasks:
            for_aces = pl.col("eligible") | (pl.col("reason") == PRIOR_OUTCOME) | pl.col("reason").str.contains("popul")
            subjects = scopes[task.name].filter(for_aces)["subject_id"].to_list()
            mine = times[task.name].filter(pl.col("index") == 1).select("subject_id", "event")
            assert dict(mine.iter_rows()) == by_aces(task, future, subjects, home / "events.parquet"), task.name
            labels += mine["event"].to_list()
        return labels


def test_vigil_and_aces_agree_on_every_task(tmp_path: Path) -> None:
    with deployment(tmp_path):
        tasks = load_tasks(tuple(task_names()))
    labels = compare(tmp_path, 1, tasks, people=60, each=14, codes=CODES)
    assert 100 < sum(labels) < len(labels) - 100


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), each=st.integers(1, 12))
def test_vigil_and_aces_agree_on_all_that_a_task_may_say(
    tmp_path_factory: pytest.TempPathFactory, seed: int, each: int
) -> None:
    home = tmp_path_factory.mktemp("aces")
    (home / "everything.yaml").write_text(EVERYTHING)
    codes = ["ICD10CM//I50.9", "ICD10CM//I63.9", "LOINC//4548-4", "ATC//A10BA02", "ATC//N02AA01"]
    compare(home, seed, (load_task("everything", home),), people=40, each=each, codes=codes)
