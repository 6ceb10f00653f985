"""What the DAGs share: default arguments, the calendar, and the day a run stands for."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, ExceptionRetryPolicy, RetryAction, RetryRule, get_current_context

from ml.common.claims import Claim, hold
from ml.common.errors import ConfigError, RefusedError
from ml.settings import get_settings

# A wrong setting, bad data, a refusal or an absent thing will not mend itself within minutes; a source may.
HOPELESS = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[
                "ml.common.errors.ConfigError",
                "ml.common.errors.QualityError",
                "ml.common.errors.RefusedError",
                "ml.common.errors.NotFoundError",
            ],
            action=RetryAction.FAIL,
            reason="a known cause that a retry cannot mend",
        )
    ]
)


def default_args(owner: str) -> dict[str, Any]:
    """Default arguments of every task of a DAG."""
    return {
        "owner": owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
        "retry_policy": HOPELESS,
        "pool": "default_pool",
    }


def calendar(cron: str) -> dict[str, Any]:
    """Schedule arguments of a DAG: a daily data interval in UTC, ending where the hospital's calendar ends."""
    end = get_settings().calendar_end
    return {
        "schedule": CronDataIntervalTimetable(cron, timezone="UTC"),
        "start_date": datetime(2000, 1, 1, tzinfo=UTC),
        "end_date": datetime.combine(end, time.max, UTC) if end else None,
        "catchup": False,
        "max_active_runs": 1,
    }


def as_of() -> date:
    """The day this run stands for: the date of its ``data_interval_start``.

    Raises:
        ConfigError: the run was triggered without a logical date, so it stands for no day.
        RefusedError: the day lies after the end of the hospital's calendar, which a backfill by Airflow itself does
            not heed: the night would commit days whose rows have not come.
    """
    start = get_current_context().get("data_interval_start")
    if start is None:
        raise ConfigError(
            "this run has no data interval, so it stands for no day",
            "trigger it with a logical date, or use 'vigil backfill run'",
        )
    end = get_settings().calendar_end
    if end and start.date() > end:
        raise RefusedError(f"{start.date()} is after the end of the calendar, {end}", "run an earlier day")
    day: date = start.date()
    return day


def claim() -> Claim:
    """This run's claim on its day. Every task that writes asks for it first.

    Raises:
        RefusedError: another run of the same day began later and is at work.
    """
    return hold(_dag_id(), as_of(), run_id(), _is_over)


def claimed_day() -> date:
    """The day this run stands for, claimed.

    Raises:
        RefusedError: as ``claim``.
    """
    return claim().as_of


def _dag_id() -> str:
    return get_current_context()["ti"].dag_id


def _is_over(run_id: str) -> bool:
    """Whether a run of this DAG has ended or was deleted."""
    at_work = get_current_context()["ti"].get_dr_count(_dag_id(), run_ids=[run_id], states=["queued", "running"])
    return at_work == 0


def facts(result: Any) -> dict[str, Any]:
    """A stage's hand-over, a frozen dataclass of counts, days, paths and digests, as small JSON for XCom."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(result), default=str))
    return plain


def run_id() -> str:
    """The Airflow run id, the name under which rows are published."""
    return get_current_context()["run_id"]
