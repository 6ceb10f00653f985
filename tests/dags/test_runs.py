"""The DAGs' wiring, run in this process on a hospital of twenty people: real stages, real Postgres, real MLflow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from ml.common.claims import hold
from ml.common.db import connect, execute, fetch
from ml.extraction.log import pending_path, snapshot_path
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

DAY = small_hospital.BASE
NEXT = DAY + timedelta(days=1)
Run = Callable[[str, date], dict[str, set[str]]]


@pytest.fixture
def run(dag_bag: DagBag, airflow_database: None, tracked: Settings) -> Run:
    """Runs a DAG for a day; the states of each task."""
    small_hospital.build()

    def run_dag(dag_id: str, day: date) -> dict[str, set[str]]:
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session

        found = dag_bag.dags[dag_id].test(logical_date=_moment(day), run_after=_moment(day))
        with create_session() as session:
            query = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=found.run_id)
            states: dict[str, set[str]] = {}
            for instance in query:
                states.setdefault(instance.task_id, set()).add(str(instance.state))
        return states

    return run_dag


def _moment(day: date) -> datetime:
    """The logical date of a manual run for a day: the end of the day's interval."""
    return datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC) + timedelta(hours=2)


def _releases() -> list[tuple[str, date]]:
    with connect(Role.READ) as connection:
        return [(table, day) for table, day in fetch(connection, "select table_name, as_of from published.releases")]


def test_a_night_without_a_champion_commits_and_publishes_interconnections_only(run: Run) -> None:
    states = run("nightly", DAY)
    skipped = {"find_champion", "score", "publish_risk_scores", "watch_outcomes"}
    assert {task for task, state in states.items() if state == {"skipped"}} == skipped
    assert all(state == {"success"} for task, state in states.items() if task not in skipped)
    assert snapshot_path(DAY).exists()
    assert _releases() == [("disease_interconnections", DAY)]


def test_bad_rows_turn_the_night_red_and_nothing_is_committed_or_published(run: Run) -> None:
    with connect(Role.LOAD) as connection:
        execute(connection, "update ehr.condition_occurrence set condition_start_date = '2030-01-01'")
    states = run("nightly", DAY)
    assert states["extract"] == {"success"}
    assert states["validate"] == {"failed"}
    assert states["commit_snapshot"] == states["publish_interconnections"] == {"upstream_failed"}
    assert pending_path(DAY).exists()
    assert not snapshot_path(DAY).exists()
    assert _releases() == []


def test_an_empty_night_is_no_fault(run: Run) -> None:
    run("nightly", DAY)
    states = run("nightly", NEXT)
    assert states["validate"] == states["commit_snapshot"] == states["publish_interconnections"] == {"success"}
    assert snapshot_path(NEXT).exists()


def test_a_backfilled_day_is_published_and_what_is_current_stays(run: Run) -> None:
    run("nightly", NEXT)
    states = run("nightly", DAY)
    assert states["commit_snapshot"] == states["publish_interconnections"] == {"success"}
    assert snapshot_path(DAY).exists()
    assert set(_releases()) == {("disease_interconnections", NEXT), ("disease_interconnections", DAY)}
    with connect(Role.READ) as connection:
        assert fetch(connection, "select as_of from published.current_releases") == [(NEXT,)]


def test_a_day_after_the_calendar_extracts_nothing_whoever_starts_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_CALENDAR_END", str(DAY))
    get_settings.cache_clear()
    states = run("nightly", NEXT)
    assert states["extract"] == {"failed"}
    assert states["commit_snapshot"] == {"upstream_failed"}
    assert not pending_path(NEXT).exists()


def test_a_run_whose_day_another_run_has_taken_is_refused_until_that_one_has_ended(run: Run) -> None:
    own = f"manual__{_moment(DAY).isoformat()}"
    hold("nightly", DAY, own, lambda _: False)
    hold("nightly", DAY, "rival", lambda _: False)
    _rival("running")
    states = run("nightly", DAY)
    assert states["extract"] == {"failed"}
    assert states["commit_snapshot"] == states["publish_interconnections"] == {"upstream_failed"}
    assert not pending_path(DAY).exists()
    _rival("failed")
    assert run("nightly", DAY)["publish_interconnections"] == {"success"}


def _rival(state: str) -> None:
    """Another run of the day, in Airflow's database."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(DagRun).filter_by(dag_id="nightly", run_id="rival").one_or_none()
        if found is None:
            found = DagRun(dag_id="nightly", run_id="rival", run_type="manual", run_after=_moment(NEXT))
            session.add(found)
        found.set_state(state)


def test_retraining_without_a_snapshot_is_red_and_trains_nothing(run: Run) -> None:
    states = run("retraining", DAY)
    assert states["find_snapshot"] == {"failed"}
    assert states["pretrain"] == states["publish_risk_scores"] == {"upstream_failed"}
