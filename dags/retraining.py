"""
### retraining
Trains a challenger on the newest snapshot, judges it against the champion and the baselines, writes its report,
registers it, waits for a decision, and on approval promotes it and publishes the newest snapshot's scores.

**Reads** the newest committed snapshot, whatever its own data interval. Skips if a model of that snapshot was
already judged. Search, pretraining and fine-tuning run in the queue and pool `gpu`, each in a fresh interpreter.

**Safe to clear?** Yes. Every step finds what it finished before; a killed training goes on from its checkpoint.

**Safe to backfill?** No need: a backfill of `nightly` never triggers it, and a run of any date trains on the newest
snapshot.

**When it is red** read the last line of the failed task's log. `pretrain`, `finetune`: memory or the device; clear
the task. `gate` never turns red: a model that does not pass is logged, and the rest is skipped with the reason.
`await_decision` red: nobody decided in time; answer with `vigil review approve` or `reject` and clear it.

Parameter `full`: pretrain from scratch instead of warm-starting from the champion. Parameter `search_trials`: search
hyper-parameters with so many trials first, and train with the best (docs/runbooks/training.md). Parameter `recurrent`:
train the recurrent baseline of Med-BERT's paper, too, and judge it on the same patients.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import vigil_defaults as vigil
from airflow.sdk import Param, PokeReturnValue, TriggerRule, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from ml.settings import get_settings

GPU: dict[str, Any] = {"queue": "gpu", "pool": "gpu", "retries": 3}


@dag(
    dag_id="retraining",
    doc_md=__doc__,
    tags=["vigil", "training"],
    default_args=vigil.default_args("ml-engineering"),
    params={
        "full": Param(False, type="boolean", description="pretrain from scratch, not from the champion"),
        "recurrent": Param(False, type="boolean", description="train the recurrent baseline, too, and judge it"),
        "search_trials": Param(0, type="integer", minimum=0, description="trials of a search of hyper-parameters"),
    },
    **vigil.calendar("0 4 * * *"),
)
def retraining() -> None:
    @task
    def find_snapshot() -> str:
        from ml.cohorts import open_run
        from ml.registry import judged

        run = open_run()
        if judged(run):
            raise AirflowSkipException(f"nothing new: a model of snapshot {run.name} was already judged")
        return run.as_of.isoformat()

    @task(multiple_outputs=False)
    def prepare(as_of: str) -> dict[str, Any]:
        from ml.cohorts import make_labels, open_run
        from ml.registry import warm_start
        from ml.sequences import prepare

        run = open_run(date.fromisoformat(as_of))
        initial = None if get_current_context()["params"]["full"] else warm_start()
        labels, sequences = make_labels(run), prepare(run, initial)
        return {"initial": str(initial) if initial else None, "labels": labels, "sequences": sequences}

    @task(**GPU)
    def search(as_of: str, prepared: dict[str, Any]) -> dict[str, Any]:
        from ml.cohorts import open_run
        from ml.registry import followed
        from ml.training import launch_search

        trials, run = get_current_context()["params"]["search_trials"], open_run(date.fromisoformat(as_of))
        if not trials:
            return {"trials": 0}
        with followed(run, "search"):
            return launch_search(run, trials, _initial(prepared))

    @task(**GPU)
    def pretrain(as_of: str, prepared: dict[str, Any]) -> dict[str, Any]:
        from ml.cohorts import open_run
        from ml.registry import followed
        from ml.training import launch

        run = open_run(date.fromisoformat(as_of))
        with followed(run, "pretrain"):
            return launch("pretrain", run, _initial(prepared))

    @task(**GPU)
    def finetune(as_of: str) -> dict[str, Any]:
        from ml.cohorts import open_run
        from ml.registry import followed
        from ml.training import launch

        run = open_run(date.fromisoformat(as_of))
        with followed(run, "finetune"):
            return launch("finetune", run)

    @task(**GPU)
    def train_recurrent(as_of: str) -> dict[str, Any]:
        if not get_current_context()["params"]["recurrent"]:
            raise AirflowSkipException("the recurrent baseline was not asked for (parameter recurrent)")
        from ml.cohorts import open_run
        from ml.registry import followed
        from ml.training import launch

        run = open_run(date.fromisoformat(as_of))
        with followed(run, "recurrent"):
            return launch("recurrent", run)

    @task
    def consult_oracle(as_of: str) -> str:
        if get_settings().hospital != "demo":
            raise AirflowSkipException("only the demo hospital has an oracle: its process is known")
        from ml.cohorts import open_run
        from ml.demo.oracle import write_predictions

        return str(write_predictions(open_run(date.fromisoformat(as_of))))

    @task
    def consult_champion(as_of: str) -> str:
        from ml.cohorts import open_run
        from ml.scoring import predict_with_champion

        path = predict_with_champion(open_run(date.fromisoformat(as_of)))
        if path is None:
            raise AirflowSkipException("no champion to compare with")
        return str(path)

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def evaluate(as_of: str) -> dict[str, Any]:
        from ml.cohorts import open_run
        from ml.evaluation import evaluate

        return evaluate(open_run(date.fromisoformat(as_of))).summary()

    @task
    def gate(as_of: str) -> dict[str, Any]:
        from ml.cohorts import open_run
        from ml.registry import gate

        return gate(open_run(date.fromisoformat(as_of))).summary()

    @task
    def model_report(as_of: str) -> str:
        from ml.cohorts import open_run
        from ml.registry import write_report

        return str(write_report(open_run(date.fromisoformat(as_of))))

    @task
    def register(as_of: str) -> int:
        from ml.cohorts import open_run
        from ml.registry import gate, register

        run = open_run(date.fromisoformat(as_of))
        verdict = gate(run)
        model = register(run)
        if not verdict.passed:
            raise AirflowSkipException(f"the gate refused version {model.version}: {verdict.reason}")
        return model.version

    @task.sensor(mode="reschedule", poke_interval=15, timeout=timedelta(days=14).total_seconds(), retries=0)
    def await_decision(version: int) -> PokeReturnValue:
        from ml.registry import decide_by_policy, decision_for

        decision = decide_by_policy(version) if get_settings().review == "auto" else decision_for(version)
        if decision is None:
            return PokeReturnValue(is_done=False)
        if not decision.approved:
            raise AirflowSkipException(f"version {version} was rejected: see 'vigil review show {version}'")
        return PokeReturnValue(is_done=True, xcom_value=version)

    @task
    def promote(version: int) -> dict[str, Any]:
        from ml.registry import champion, promote

        promotion, found = promote(version), champion()
        return {**promotion.summary(), "folder": str(found.finetuned) if found else None}

    @task
    def score(shard: int, as_of: str, model: dict[str, Any]) -> dict[str, Any]:
        from ml.scoring import score_day

        return score_day(date.fromisoformat(as_of), shard, Path(model["folder"]), model["version"])

    @task
    def publish_risk_scores(as_of: str) -> dict[str, Any]:
        from ml.publication import publish_risk_scores

        return publish_risk_scores(date.fromisoformat(as_of), vigil.run_id()).summary()

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def report(as_of: str) -> str:
        from ml.publication.report import write_report

        return str(write_report(date.fromisoformat(as_of)))

    as_of = find_snapshot()
    prepared = prepare(as_of)
    evaluated = evaluate(as_of)
    search(as_of, prepared) >> pretrain(as_of, prepared) >> finetune(as_of) >> train_recurrent(as_of) >> evaluated
    prepared >> [consult_oracle(as_of), consult_champion(as_of)] >> evaluated
    version = register(as_of)
    evaluated >> gate(as_of) >> model_report(as_of) >> version
    published = publish_risk_scores(as_of)
    promoted = promote(await_decision(version))
    score.partial(as_of=as_of, model=promoted).expand(shard=list(range(get_settings().shards))) >> published
    published >> report(as_of)


def _initial(prepared: dict[str, Any]) -> Path | None:
    """Folder of the model that training starts from."""
    return Path(prepared["initial"]) if prepared["initial"] else None


retraining()
