"""What the DAGs share: default arguments, the calendar, and the day a run stands for."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from airflow.sdk import CronDataIntervalTimetable, ExceptionRetryPolicy, RetryAction, RetryRule, get_current_context

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
    """The day this run stands for: the date of its ``data_interval_start``."""
    return get_current_context()["data_interval_start"].date()


def facts(result: Any) -> dict[str, Any]:
    """A stage's hand-over, a frozen dataclass of counts, days, paths and digests, as small JSON for XCom."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(result), default=str))
    return plain


def run_id() -> str:
    """The Airflow run id, the name under which rows are published."""
    return get_current_context()["run_id"]
