"""Cohorts: views of a snapshot and task definitions (ACES) come in; who is eligible, labels and splits go out.

A run (`open_run`) names one retraining: its snapshot, index days and files.
"""

from ml.cohorts.eligibility import eligible, eligible_all, prediction_time
from ml.cohorts.labels import make_labels, read_labels
from ml.cohorts.runs import TrainingRun, open_run
from ml.cohorts.splits import check_disjoint, split_all, split_of
from ml.cohorts.tasks import Task, load_task, load_tasks, task_names

__all__ = [
    "Task",
    "TrainingRun",
    "check_disjoint",
    "eligible",
    "eligible_all",
    "load_task",
    "load_tasks",
    "make_labels",
    "open_run",
    "prediction_time",
    "read_labels",
    "split_all",
    "split_of",
    "task_names",
]
