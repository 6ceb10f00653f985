"""How many subjects and events every task has in a snapshot, without labels being written."""

from __future__ import annotations

from datetime import date

from ml.cohorts.evaluability import Evaluability, evaluability
from ml.cohorts.labels import task_times
from ml.cohorts.runs import open_run
from ml.cohorts.tasks import load_tasks


def count_tasks(names: tuple[str, ...], as_of: date | None = None) -> dict[str, Evaluability]:
    """Count tasks at the index days of a snapshot.

    Args:
        names: the tasks.
        as_of: the snapshot's day; by default the newest.

    Raises:
        ConfigError: a task is unknown or cannot be used.
        NotFoundError: there is no such snapshot.
    """
    tasks = load_tasks(names)
    return {name: evaluability(name, times) for name, times in task_times(open_run(as_of), tasks).items()}
