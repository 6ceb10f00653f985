"""`vigil tasks list|describe|count`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml.cli import app
from ml.cohorts import load_task, task_names
from ml.common.errors import ConfigError, NotFoundError
from tests.ml.synthetic_log import commit, deployment, make_events


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with deployment(tmp_path, index_days="5"):
        yield tmp_path


def vigil(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tasks", *arguments])
    if result.exception:
        raise result.exception
    return result.output


def test_list_has_one_line_for_each_task(home: Path) -> None:
    lines = vigil("list").splitlines()
    assert [line.split()[0] for line in lines] == task_names()
    assert all(load_task(line.split()[0]).description in line for line in lines)
    assert [one["name"] for one in json.loads(vigil("list", "--json"))] == task_names()


def test_describe_says_codes_windows_population_and_source(home: Path) -> None:
    text = vigil("describe", "heart_failure_in_diabetes")
    for part in ("I50", "day 3 to 365", "at least 2 moments of diabetes", ">= 6.5", "18 years", "730 days", "Rasmy"):
        assert part in text
    values = json.loads(vigil("describe", "breast_cancer", "--json"))
    assert values["outcome"] == load_task("breast_cancer").outcome
    assert values["scope"]["minimum_history_days"] == 365
    assert [one["window"] for one in values["past"]] == ["female", "history"]


def test_count_gives_subjects_and_events_by_split_and_says_what_cannot_be_judged(home: Path) -> None:
    commit(make_events(3000, 25))
    names = ("death", "anaphylaxis", "preterm_birth")
    found = {one["task"]: one for one in json.loads(vigil("count", *names, "--json"))}
    assert set(found) == set(names)
    assert [one["split"] for one in found["death"]["counts"]] == ["train", "tuning", "held_out"]
    assert all(one["rows"] >= one["subjects"] >= one["cases"] > 0 for one in found["death"]["counts"])
    assert found["death"]["evaluable"]
    text = vigil("count", *names, "--as-of", "2024-06-30")
    assert "not evaluable: no events among held-out patients" in text
    assert "not evaluable: nobody is at risk" in text


def test_count_of_an_unknown_task_or_day_is_refused(home: Path) -> None:
    commit(make_events(50, 10))
    with pytest.raises(ConfigError, match="no task 'gout'"):
        vigil("count", "gout")
    with pytest.raises(NotFoundError):
        vigil("count", "death", "--as-of", "2020-01-01")
