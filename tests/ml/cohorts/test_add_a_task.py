"""docs/how-to/add-a-task.md, followed to the letter; and the table of docs/reference/tasks.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml.cohorts import eligible, load_task, load_tasks, make_labels, open_run, read_labels, task_names, tasks_of
from ml.cohorts.counting import count_tasks
from ml.common.errors import ConfigError
from ml.extraction import read_view
from ml.settings import get_settings
from tests.ml.synthetic_log import as_events, commit, deployment, event, person

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "how-to" / "add-a-task.md").read_text()
BLOCK = re.compile(r"^`(?P<path>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
DAY = date(2023, 7, 1)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[pl.DataFrame]:
    """The page's file in its folder, its people in a snapshot; the people as the page shows them."""
    blocks = {match["path"]: match["text"] for match in BLOCK.finditer(PAGE)}
    assert set(blocks) == {"tasks/gout.yaml", "people.csv"}
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "gout.yaml").write_text(blocks["tasks/gout.yaml"])
    shown = pl.read_csv(blocks["people.csv"].encode())
    rows = [event(1, "ICD10CM//M10.9", "2023-10-05"), event(3, "ICD10CM//M10.9", "2019-10-05")]
    for row in shown.iter_rows(named=True):
        rows.append(person(row["who"] - 1, born=row["born"], sex=row["sex"]))
        rows.append(event(row["who"] - 1, row["code"], row["time"], value=row["value"]))
        rows.append(event(row["who"] - 1, "ICD10CM//I10", "2018-01-01"))
    tasks = re.search(r"VIGIL_TASKS='(.*)'", PAGE)
    assert tasks is not None
    with deployment(tmp_path, task_folder=str(tmp_path / "tasks"), tasks=tasks[1], index_days="2"):
        commit(as_events(pl.concat(rows)))
        yield shown


def test_whoever_follows_the_page_has_its_task_and_the_labels_it_shows(followed: pl.DataFrame) -> None:
    run = open_run()
    assert (run.test_day, run.as_of) == (DAY, DAY + timedelta(days=365))
    assert make_labels(run)["gout"] == 2
    labels = dict(read_labels(run, "gout").select("subject_id", "boolean_value").iter_rows())
    view = pl.concat([read_view(run.snapshot, DAY, shard) for shard in range(run.snapshot.shards)])
    reasons = dict(eligible(view, DAY, load_task("gout")).select("subject_id", "reason").iter_rows())
    found = {who: reasons[who] or ("yes" if labels[who] else "no") for who in reasons}
    assert found == dict(followed.select("who", "gout").iter_rows())


def test_the_pages_task_is_counted_beside_vigils_own(followed: pl.DataFrame) -> None:
    assert "gout" in task_names()
    assert set(load_tasks(get_settings().tasks)) >= {load_task("gout"), load_task("stroke")}
    found = count_tasks(("gout", "stroke"))["gout"]
    assert sum(count.rows for count in found.counts) == 2
    assert found.events == 1
    assert not found.evaluable


def test_the_pages_task_is_an_aces_task(followed: pl.DataFrame) -> None:
    from aces.config import TaskExtractorConfig

    config = TaskExtractorConfig.load(load_task("gout").path)
    assert (config.label_window, config.index_timestamp_window) == ("target", "history")


def test_a_folder_that_is_absent_or_takes_a_name_of_vigils_is_refused(tmp_path: Path) -> None:
    with deployment(tmp_path, task_folder=str(tmp_path / "nowhere")), pytest.raises(ConfigError, match="no directory"):
        task_names()
    (tmp_path / "stroke.yaml").write_text("")
    with deployment(tmp_path, task_folder=str(tmp_path)), pytest.raises(ConfigError, match=r"'stroke' .* has the name"):
        load_task("death")


def test_the_reference_has_a_line_for_every_task_as_its_file_says() -> None:
    days = r"(\d+) d"
    row = rf"^\| `(\w+)`(\*?) \| (.+?) \| {days} \| {days} \| ([\w ]+) \| {days} \| (\d+)\+"
    line = re.compile(row, re.MULTILINE)
    shown = {row[0]: row[1:] for row in line.findall((DOCS / "reference" / "tasks.md").read_text())}
    assert sorted(shown) == task_names()
    for name, (star, description, horizon, delay, prior, history, age) in shown.items():
        task = load_task(name)
        assert (star == "*") == (name in tasks_of("core_behrt")), name
        assert description == task.description
        assert (int(horizon), int(delay)) == (task.horizon_days, task.delay_days), name
        assert (int(history), int(age)) == (task.scope.minimum_history_days, task.scope.minimum_age), name
        assert (prior == "excluded") == task.excludes_prior, name
