"""Cohorts: views of a snapshot and task definitions (ACES) come in; who is eligible, labels and splits go out.

A run (`open_run`) names one retraining: its snapshot, index days and files.
"""

from ml.cohorts.eligibility import eligible, eligible_all, prediction_time
from ml.cohorts.evaluability import Evaluability, evaluability
from ml.cohorts.labels import make_labels, read_evaluability, read_flow, read_labels, read_times, task_times
from ml.cohorts.runs import TrainingRun, open_run
from ml.cohorts.splits import check_disjoint, split_all, split_of, temporal_hold_out
from ml.cohorts.tasks import CORE_BEHRT, Task, load_task, load_tasks, task_names, tasks_of

__all__ = [
    "CORE_BEHRT",
    "Evaluability",
    "Task",
    "TrainingRun",
    "check_disjoint",
    "eligible",
    "eligible_all",
    "evaluability",
    "load_task",
    "load_tasks",
    "make_labels",
    "open_run",
    "prediction_time",
    "read_evaluability",
    "read_flow",
    "read_labels",
    "read_times",
    "split_all",
    "split_of",
    "task_names",
    "task_times",
    "tasks_of",
    "temporal_hold_out",
]
