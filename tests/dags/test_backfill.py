"""`vigil backfill` against a real api-server of Airflow without a scheduler: what it plans, refuses, cancels and frees.

What the runs themselves do is tested in test_runs.py and, through the scheduler, in tests/e2e.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from infra.airflow.api import AirflowApi, ConflictError
from infra.airflow.backfill import all_backfills, look, stranded
from infra.airflow.commands import app
from infra.airflow.plan import DAG, Plan, make_plan
from ml.common.errors import NotFoundError, RefusedError
from ml.settings import Settings, get_settings
from tests.ml import small_hospital

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

NIGHT = small_hospital.BASE  # everything up to this day is committed
FIRST = date(2024, 1, 2)  # the hospital's first record


def day(offset: int) -> date:
    return NIGHT + timedelta(days=offset)


@pytest.fixture(scope="module")
def airflow(dag_bag: DagBag, airflow_database: None) -> Iterator[AirflowApi]:
    """A client of an api-server in a thread of this process."""
    import uvicorn
    from airflow.api_fastapi.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(), port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    port = server.servers[0].sockets[0].getsockname()[1]
    api = AirflowApi(f"http://127.0.0.1:{port}")
    yield api
    api.close()
    server.should_exit = True
    thread.join()


@pytest.fixture
def api(airflow: AirflowApi, vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> AirflowApi:
    """Airflow without runs, its nightly DAG unpaused, beside a small hospital of which a night is committed."""
    from airflow.models.backfill import Backfill
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        session.query(DagRun).delete()
        session.query(Backfill).delete()
    airflow.unpause(DAG)
    monkeypatch.setenv("VIGIL_AIRFLOW_URL", airflow.url)
    get_settings.cache_clear()
    small_hospital.build()
    small_hospital.night(NIGHT)
    small_hospital.add_condition(901, 1, NIGHT, recorded=day(1))
    small_hospital.add_condition(902, 2, day(-20), recorded=day(2))  # late
    return airflow


@pytest.fixture
def vg() -> Callable[..., Result]:
    """Runs `vigil backfill`; known failures are raised."""

    def run(*words: str) -> Result:
        found = CliRunner().invoke(app, list(words))
        if found.exception and not isinstance(found.exception, SystemExit):
            raise found.exception
        return found

    return run


def between(first: date, last: date) -> tuple[str, ...]:
    return ("--from", str(first), "--to", str(last))


def create(api: AirflowApi, first: date, last: date, reprocess: str = "none") -> Plan:
    """Start a backfill as the command does, without following it: nothing would run."""
    from infra.airflow.backfill import start

    plan = make_plan(api, first, last, reprocess)
    start(api, plan, 1)
    return plan


def end(state: str, *days: date, over: bool = True) -> None:
    """Let the runs of some days end, and their backfill if none is left and it shall be over."""
    from airflow.models.backfill import Backfill
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    began = datetime(2026, 1, 1, 2, tzinfo=UTC)
    with create_session() as session:
        for run in session.query(DagRun).filter_by(dag_id=DAG):
            if run.logical_date.date() in days:
                run.state = state  # which sets the times too
                run.start_date, run.end_date = began, began + timedelta(seconds=40)
        session.flush()
        if over and not session.query(DagRun).filter(DagRun.state.in_(["queued", "running"])).count():
            session.query(Backfill).update({"completed_at": began})


def test_a_plan_says_for_each_day_what_would_be_done(api: AirflowApi) -> None:
    plan = make_plan(api, day(-1), day(2))
    assert [one.as_of for one in plan.days if one.would_run and not one.hindrance] == [day(k) for k in range(-1, 3)]
    assert [one.covered_by for one in plan.days] == [str(NIGHT), str(NIGHT), None, None]
    assert [one.snapshot is not None for one in plan.days] == [False, True, False, False]
    # A death was recorded on the first day, nothing on the second; then a row a day that is still to be extracted.
    assert [(one.rows, one.rows_in) for one in plan.days] == [(1, "log"), (0, "log"), (1, "source"), (1, "source")]
    expected = {"risk_scores": "skipped: no champion", "disease_interconnections": "first release"}
    assert all(one.releases == expected for one in plan.days)
    assert (plan.seconds, plan.nights_measured, plan.champion) == (None, 0, None)
    assert "nothing is trained: no backfill triggers retraining" in plan.untouched


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (FIRST - timedelta(days=1), "before the source's first record, 2024-01-02"),
        (day(3), "after the source's newest record, 2024-02-02: rows may still come"),
        (datetime.now(UTC).date(), "not over"),
        (datetime.now(UTC).date() + timedelta(days=400), "not over"),
    ],
)
def test_a_day_that_cannot_be_run_is_said_so_and_refused(api: AirflowApi, first: date, why: str) -> None:
    plan = make_plan(api, first, first)
    assert why in str(plan.days[0].hindrance)
    assert plan.to_run == []
    with pytest.raises(RefusedError, match=why):
        create(api, first, first)
    assert all_backfills(api) == []


def test_a_day_after_the_calendar_is_refused(api: AirflowApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_CALENDAR_END", str(NIGHT))
    get_settings.cache_clear()
    with pytest.raises(RefusedError, match=r"1 of 2 days cannot be run .* after the end of the calendar"):
        create(api, NIGHT, day(1))


def test_both_ends_are_run_and_each_run_stands_for_its_day(api: AirflowApi) -> None:
    create(api, day(-2), NIGHT)
    assert [run.as_of for run in look(api, [day(k) for k in range(-5, 5)])] == [day(-2), day(-1), NIGHT]


def test_days_that_have_a_run_are_left_or_run_again_as_asked(api: AirflowApi) -> None:
    create(api, day(-2), NIGHT)
    end("success", day(-2), day(-1))
    end("failed", NIGHT)
    with pytest.raises(RefusedError, match="every one of these days has a run: --reprocess completed"):
        create(api, day(-2), NIGHT)
    assert make_plan(api, day(-2), NIGHT, "failed").to_run == [NIGHT]
    plan = make_plan(api, day(-2), NIGHT, "completed")
    assert plan.to_run == [day(-2), day(-1), NIGHT]
    assert (plan.seconds, plan.nights_measured, plan.base_load) == (3 * 40, 2, False)
    before = [run.run_id for run in look(api, plan.to_run)]
    create(api, day(-2), NIGHT, "completed")
    assert [(run.run_id, run.state) for run in look(api, plan.to_run)] == [(run_id, "queued") for run_id in before]


def test_the_base_load_is_a_measure_only_while_there_is_no_other(api: AirflowApi) -> None:
    create(api, NIGHT, NIGHT)
    end("success", NIGHT)
    assert [(p.base_load, p.nights_measured) for p in [make_plan(api, day(-1), day(-1))]] == [(True, 1)]
    create(api, day(-1), day(-1))
    end("success", day(-1))
    assert [(p.base_load, p.nights_measured) for p in [make_plan(api, day(-2), day(-2))]] == [(False, 1)]


def test_a_run_triggered_by_hand_is_not_taken_for_the_run_of_its_day(api: AirflowApi) -> None:
    api.trigger(DAG, "by-hand", datetime(2024, 1, 31, 12, tzinfo=UTC))  # stands for the interval that ended before
    plan = make_plan(api, day(-1), NIGHT)
    assert [(one.run, one.would_run) for one in plan.days] == [(None, True), (None, True)]


def test_days_that_must_be_extracted_run_one_after_the_other(api: AirflowApi, vg: Callable[..., Result]) -> None:
    with pytest.raises(RefusedError, match="2 days from 2024-02-01 on must be extracted"):
        vg("run", *between(NIGHT, day(2)), "--max-active", "2", "--dry-run")
    assert "3 days would run" in vg("run", *between(day(-2), NIGHT), "--max-active", "2", "--dry-run").output
    assert all_backfills(api) == []


def test_a_paused_dag_is_refused_since_its_runs_would_wait(api: AirflowApi, vg: Callable[..., Result]) -> None:
    api.pause(DAG)
    with pytest.raises(RefusedError, match="paused: its backfill would wait"):
        vg("run", *between(NIGHT, NIGHT))


def test_a_second_backfill_is_refused_while_one_is_under_way(api: AirflowApi) -> None:
    create(api, NIGHT, NIGHT)
    with pytest.raises(ConflictError, match="another backfill of nightly is under way: follow it"):
        create(api, day(-1), day(-1))


def test_a_backfill_that_airflow_has_not_yet_called_over_is_waited_for(
    api: AirflowApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(api, NIGHT, NIGHT)
    end("success", NIGHT, over=False)
    assert not all_backfills(api)[0].over
    monkeypatch.setattr("infra.airflow.backfill.time.sleep", lambda _: end("success"))
    create(api, day(-1), day(-1))
    assert [one.over for one in all_backfills(api)] == [False, True]


def test_a_cancelled_backfill_is_said_so_and_what_was_cleared_afterwards_is_freed(
    api: AirflowApi, vg: Callable[..., Result]
) -> None:
    with pytest.raises(NotFoundError, match="there is no backfill"):
        vg("cancel")
    create(api, day(-1), NIGHT)
    assert "is cancelled" in vg("cancel").output
    shown = json.loads(vg("status", "--json").output)
    assert shown["backfill"]["cancelled"]
    assert {one["reason"] for one in shown["days"]} == {"no task of it has run: it was cancelled"}
    with pytest.raises(NotFoundError, match="no backfill of nightly is under way"):
        vg("cancel")

    run_id = look(api, [NIGHT])[0].run_id
    api.clear(DAG, run_id, only_failed=False)
    assert stranded(api, day(-1), NIGHT) == [run_id]
    assert "1 runs were cleared after their backfill was cancelled" in vg("status").output
    assert make_plan(api, day(-1), NIGHT, "failed").to_run == [day(-1)]  # Airflow by itself leaves the stranded one
    _run_without_following(vg, *between(day(-1), NIGHT), "--reprocess", "failed")
    assert [run.state for run in look(api, [day(-1), NIGHT])] == ["queued", "queued"]
    assert stranded(api, day(-1), NIGHT) == []


def _run_without_following(vg: Callable[..., Result], *words: str) -> None:
    """`vigil backfill run`, interrupted as soon as it follows: that leaves the backfill running and says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infra.airflow.backfill.time.sleep", _interrupt)
        found = vg("run", *words)
    assert found.exit_code == 130
    assert "the backfill goes on: 'vigil backfill status --follow' shows it again" in found.output


def _interrupt(_: float) -> Any:
    raise KeyboardInterrupt


def test_following_ends_with_the_runs_and_tells_by_its_exit(
    api: AirflowApi, vg: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.airflow.backfill.time.sleep", lambda _: end("success", day(-1), NIGHT))
    shown = vg("run", *between(day(-1), NIGHT)).output
    assert "2024-01-30  success    40 s  (1 of 2)" in shown
    assert "vigil backfill diff --from 2024-01-30 --to 2024-01-31" in shown
    monkeypatch.setattr("infra.airflow.backfill.time.sleep", lambda _: end("failed", NIGHT))
    with pytest.raises(
        Exception, match="1 of 1 days ended red, the first 2024-01-31: mend the cause, then 'vigil"
    ) as e:
        vg("run", *between(NIGHT, NIGHT), "--reprocess", "completed")
    assert e.value.exit_code == 1  # type: ignore[attr-defined]


def test_a_diff_needs_a_backfill_or_a_moment_to_compare_at(api: AirflowApi, vg: Callable[..., Result]) -> None:
    with pytest.raises(NotFoundError, match="give the moment to compare at, --since"):
        vg("diff", *between(NIGHT, NIGHT))
    found = json.loads(vg("diff", *between(NIGHT, NIGHT), "--since", "2024-02-01", "--json").output)
    assert {one["outcome"] for one in found["days"]} == {"not published"}
    create(api, NIGHT, NIGHT)
    found = json.loads(vg("diff", *between(NIGHT, NIGHT), "--json").output)
    assert datetime.fromisoformat(found["since"]) == all_backfills(api)[0].created_at


def test_days_the_wrong_way_round_and_unknown_words_are_refused(api: AirflowApi, vg: Callable[..., Result]) -> None:
    with pytest.raises(RefusedError, match="give the earlier day to --from"):
        vg("plan", *between(NIGHT, day(-1)))
    with pytest.raises(RefusedError, match="use none, failed, completed"):
        vg("plan", *between(NIGHT, NIGHT), "--reprocess", "all")
