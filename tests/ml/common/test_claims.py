"""Claims: of several runs of one day exactly one works on, whatever is retried, cleared or late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from psycopg2 import errors

from ml.common.claims import Claim, hold, require_held, turn
from ml.common.db import connect, execute, fetch
from ml.common.errors import RefusedError
from ml.settings import Role, Settings

DAY = date(2024, 1, 31)


def at_work(run_id: str) -> bool:
    return False


def over(run_id: str) -> bool:
    return True


def never_asked(run_id: str) -> bool:
    raise AssertionError(f"asked about {run_id}")


def ask(run_id: str, is_over: Callable[[str], bool] = at_work, day: date = DAY, pipeline: str = "nightly") -> Claim:
    return hold(pipeline, day, run_id, is_over)


def check(claim: Claim) -> None:
    with connect(Role.PUBLISH) as connection:
        require_held(connection, claim)


def test_a_run_keeps_its_day_through_all_its_tasks(vigil: Settings) -> None:
    first = ask("scheduled", never_asked)
    assert ask("scheduled", never_asked) == first
    check(first)


def test_a_run_that_begins_later_takes_the_day_and_the_older_is_told_by_whom(vigil: Settings) -> None:
    ask("scheduled")
    newer = ask("backfill", never_asked)
    with pytest.raises(RefusedError, match=r"another run of nightly for 2024-01-31 .*\(backfill\): nothing to do if"):
        ask("scheduled")
    check(newer)


def test_a_run_gets_its_day_back_once_the_winner_is_over(vigil: Settings) -> None:
    old, rival = ask("scheduled"), ask("backfill")
    back = ask("scheduled", over)
    assert back.token > rival.token > old.token
    check(back)
    with pytest.raises(RefusedError, match=r"\(scheduled\)"):  # cleared while the other is at work
        ask("backfill")


def test_a_third_run_that_takes_the_day_meanwhile_is_asked_about_too(vigil: Settings) -> None:
    ask("scheduled"), ask("backfill")

    def over_but_a_third_begins(run_id: str) -> bool:
        if run_id == "backfill":
            ask("manual", never_asked)
        return run_id == "backfill"

    with pytest.raises(RefusedError, match=r"\(manual\)"):
        ask("scheduled", over_but_a_third_begins)


def test_days_and_pipelines_are_apart(vigil: Settings) -> None:
    found = [ask("a"), ask("b", day=date(2024, 2, 1)), ask("c", pipeline="retraining")]
    assert [ask("a", never_asked), ask("b", never_asked, date(2024, 2, 1))] == found[:2]


def test_of_many_runs_at_once_exactly_one_does_all_its_tasks(vigil: Settings) -> None:
    barrier = threading.Barrier(8)

    def work(run: int) -> bool:
        barrier.wait()
        try:
            for _ in range(5):
                ask(f"run-{run}")
                time.sleep(0.01)
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(8))) == 1


def test_a_stale_token_is_refused_where_rows_are_written(vigil: Settings) -> None:
    stale = ask("scheduled")
    ask("backfill")
    with pytest.raises(RefusedError, match=r"\(backfill\)"):
        check(stale)
    ask("scheduled", over)
    with pytest.raises(RefusedError, match=r"\(scheduled\)"):  # a zombie of the run's own past
        check(stale)


def test_a_rival_waits_until_what_is_being_written_is_written(vigil: Settings) -> None:
    claim = ask("scheduled")
    with ThreadPoolExecutor(1) as pool:
        with connect(Role.PUBLISH) as connection:
            require_held(connection, claim)
            rival = pool.submit(ask, "backfill")
            time.sleep(0.3)
            assert not rival.done()
        assert rival.result(timeout=10).token > claim.token


def test_only_the_first_stages_may_claim(vigil: Settings) -> None:
    ask("scheduled")
    statement = "insert into runs.claims values ('nightly', '2024-01-31', 'mine', 99)"
    for role in (Role.PUBLISH, Role.READ, Role.GOVERN):
        with pytest.raises(errors.InsufficientPrivilege), connect(role) as connection:
            execute(connection, statement)
    for forbidden in ("delete from runs.claims", "update runs.claims set run_id = 'mine'"):
        with pytest.raises(errors.InsufficientPrivilege), connect(Role.QUALITY) as connection:
            execute(connection, forbidden)
    with connect(Role.READ) as connection:
        assert fetch(connection, "select run_id from runs.claims") == [("scheduled",)]


def test_writers_take_turns(vigil: Settings) -> None:
    order = []

    def write(name: str, seconds: float) -> None:
        with turn("event log", every=0.02):
            order.append(f"{name} begins")
            time.sleep(seconds)
            order.append(f"{name} ends")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write, "a", 0.4)
        time.sleep(0.15)
        second = pool.submit(write, "b", 0)
        first.result(), second.result()
    assert order == ["a begins", "a ends", "b begins", "b ends"]


def test_a_turn_that_does_not_come_is_refused_and_one_that_failed_is_free(vigil: Settings) -> None:
    with turn("event log"), pytest.raises(RefusedError, match="another run has held 'event log'"):  # noqa: SIM117
        with turn("event log", patience=0.1, every=0.02):
            pass
    with pytest.raises(ZeroDivisionError), turn("event log"):
        raise ZeroDivisionError
    with turn("event log", patience=0.0), turn("something else", patience=0.0):
        pass
