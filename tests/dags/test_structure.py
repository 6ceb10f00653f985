"""What the scheduler sees: exactly these DAGs, owners, tags, retries, pools and queues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

NIGHTLY = {
    "extract",
    "validate",
    "commit_snapshot",
    "find_champion",
    "score",
    "publish_risk_scores",
    "watch_outcomes",
    "interconnect",
    "publish_interconnections",
    "report",
}
RETRAINING = {
    "find_snapshot",
    "prepare",
    "search",
    "pretrain",
    "finetune",
    "train_recurrent",
    "consult_oracle",
    "consult_champion",
    "evaluate",
    "gate",
    "model_report",
    "register",
    "await_decision",
    "promote",
    "score",
    "publish_risk_scores",
    "report",
}
OWNERS = {"nightly": "data-engineering", "retraining": "ml-engineering"}
TAGS = {"nightly": {"vigil", "publication"}, "retraining": {"vigil", "training"}}
ON_THE_GPU = {"search", "pretrain", "finetune", "train_recurrent"}


def test_every_dag_file_imports(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}


def test_the_set_of_dags_and_their_tasks_is_exact(dag_bag: DagBag) -> None:
    found = {dag_id: set(dag.task_ids) for dag_id, dag in dag_bag.dags.items()}
    assert found == {"nightly": NIGHTLY, "retraining": RETRAINING}


@pytest.mark.parametrize("dag_id", ["nightly", "retraining"])
def test_owners_and_tags_are_exact(dag_bag: DagBag, dag_id: str) -> None:
    dag = dag_bag.dags[dag_id]
    assert {task.owner for task in dag.tasks} == {OWNERS[dag_id]}
    assert set(dag.tags) == TAGS[dag_id]


def test_only_training_runs_in_the_gpu_queue_and_pool(dag_bag: DagBag) -> None:
    placed = {
        (dag_id, task.task_id): (task.queue, task.pool) for dag_id, dag in dag_bag.dags.items() for task in dag.tasks
    }
    on_the_gpu = {key for key, place in placed.items() if place == ("gpu", "gpu")}
    assert on_the_gpu == {("retraining", task) for task in ON_THE_GPU}
    assert {place for key, place in placed.items() if key not in on_the_gpu} == {("default", "default_pool")}


def test_retries_are_exact(dag_bag: DagBag) -> None:
    retries = {(dag_id, task.task_id): task.retries for dag_id, dag in dag_bag.dags.items() for task in dag.tasks}
    expected = dict.fromkeys(retries, 2)
    expected |= {("retraining", task): 3 for task in ON_THE_GPU} | {("retraining", "await_decision"): 0}
    assert retries == expected


@pytest.mark.parametrize("dag_id", ["nightly", "retraining"])
def test_a_run_stands_for_one_day_and_runs_alone(dag_bag: DagBag, dag_id: str) -> None:
    dag = dag_bag.dags[dag_id]
    assert type(dag.timetable).__name__ == "CronDataIntervalTimetable"
    assert dag.max_active_runs == 1
    assert not dag.catchup


@pytest.mark.parametrize("dag_id", ["nightly", "retraining"])
@pytest.mark.parametrize("answer", ["safe to clear?", "safe to backfill?", "when it is red"])
def test_every_dag_says_what_to_do(dag_bag: DagBag, dag_id: str, answer: str) -> None:
    assert answer in (dag_bag.dags[dag_id].doc_md or "").lower()


def triggered(dags: Iterable[Any]) -> set[tuple[str, str]]:
    """Pairs of DAGs of which a run of the first starts a run of the second: by an asset, or by a task that triggers."""
    found = set()
    for producer in dags:
        emitted = {outlet for task in producer.tasks for outlet in task.outlets}
        for consumer in dags:
            awaited = consumer.timetable.asset_condition
            if awaited and emitted & set(awaited.objects):
                found.add((producer.dag_id, consumer.dag_id))
        targets = [getattr(task, "trigger_dag_id", None) for task in producer.tasks]
        found |= {(producer.dag_id, target) for target in targets if target}
    return found


def test_a_backfill_never_retrains_since_no_run_triggers_another(dag_bag: DagBag) -> None:
    assert triggered(dag_bag.dags.values()) == set()
    assert not any(task.outlets for task in dag_bag.dags["nightly"].tasks)  # nor does it feed anybody else's DAG


def test_a_link_between_two_dags_is_found(dag_bag: DagBag) -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
    from airflow.sdk import DAG, Asset

    with DAG("producer", schedule=None) as producer:
        EmptyOperator(task_id="emit", outlets=[Asset("scores")])
    with DAG("consumer", schedule=[Asset("scores")]) as consumer:
        TriggerDagRunOperator(task_id="go", trigger_dag_id="third")
    assert triggered([producer, consumer]) == {("producer", "consumer"), ("consumer", "third")}
