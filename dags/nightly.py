"""
### nightly
Extracts what the hospital recorded, validates it, commits the snapshot of the day, scores every patient with the
champion, computes the disease interconnections and publishes both; lays what happened since beside earlier scores.

**Stands for** the date of its `data_interval_start` (`as_of`): only rows recorded by the end of that day are seen.

**Safe to clear?** Yes, any task, at any time. A committed partition is never rewritten, a publication of the same
rows is found again, not doubled.

**Safe to backfill?** Yes, beside the scheduled night too: `vigil backfill plan`, `run`, `diff`. A backfilled day makes
its own release, never moves the current views back, and never retrains. See docs/runbooks/backfill.md.

**Two runs of one day?** The one that began later goes on, the other ends red and says so; nothing is to be done.

**When it is red** read the last line of the failed task's log: it names the cause and the remedy.
`extract`: is the source up, and does it have the columns? `validate`: rows at fault lie in `restricted.quarantine`;
nothing was committed, so correct the source and clear the task. `publish_*`: the audit refused the rows; the previous
release stays current.

`watch_outcomes` reads the newest snapshot whatever the run's day, so it may run again at any time. An alert does not
make it red: it is a warning in its log and in the report, and the exit code of `vigil show surveillance`.

Without a champion, scoring is skipped with that reason; the snapshot and the interconnections are still published.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import vigil_defaults as vigil
from airflow.sdk import TriggerRule, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from ml.common.claims import turn
from ml.interconnections import METHOD_NAMES
from ml.settings import get_settings

EVENT_LOG = "event log"  # written by one night at a time; nights of other days wait for their turn


@dag(
    dag_id="nightly",
    doc_md=__doc__,
    tags=["vigil", "publication"],
    default_args=vigil.default_args("data-engineering"),
    **vigil.calendar("0 2 * * *"),
)
def nightly() -> None:
    @task
    def extract() -> dict[str, Any]:
        from ml.extraction import extract

        with turn(EVENT_LOG):  # the claim is asked after the wait: the day may have gone to another run meanwhile
            return vigil.facts(extract(vigil.claimed_day()))

    @task
    def validate() -> dict[str, Any]:
        from ml.quality import validate

        with turn(EVENT_LOG):
            verdict = validate(vigil.claimed_day())
        return vigil.facts(replace(verdict, drift=None))  # codes and their days stay in verdict.json

    @task
    def commit_snapshot() -> dict[str, Any]:
        from ml.extraction import commit_snapshot

        with turn(EVENT_LOG):
            return vigil.facts(commit_snapshot(vigil.claimed_day()))

    @task
    def find_champion() -> dict[str, Any]:
        from ml.registry import champion

        found = champion()
        if found is None:
            raise AirflowSkipException("no champion yet: the risk scores wait for the first model that is let through")
        return {"version": found.version, "folder": str(found.finetuned), "decision": found.decision}

    @task
    def score(shard: int, model: dict[str, Any]) -> dict[str, Any]:
        from ml.scoring import score_day

        return score_day(vigil.claimed_day(), shard, Path(model["folder"]), model["version"])

    @task
    def publish_risk_scores() -> dict[str, Any]:
        from ml.publication import publish_risk_scores

        return vigil.facts(publish_risk_scores(vigil.as_of(), vigil.run_id(), vigil.claim()))

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def watch_outcomes() -> dict[str, Any]:
        from ml.publication import watch_outcomes

        vigil.claimed_day()
        found = watch_outcomes()
        if not found.over:
            raise AirflowSkipException("no published score's horizon has passed yet")
        return found.summary()

    @task
    def interconnect(method: str) -> str:
        from ml.extraction import load_snapshot
        from ml.interconnections import compute

        return str(compute(method, load_snapshot(vigil.claimed_day())))

    @task
    def publish_interconnections() -> dict[str, Any]:
        from ml.publication import publish_interconnections

        return vigil.facts(publish_interconnections(vigil.as_of(), vigil.run_id(), vigil.claim()))

    @task(trigger_rule=TriggerRule.NONE_FAILED)
    def report() -> str:
        from ml.publication.report import write_report

        return str(write_report(vigil.claimed_day()))

    committed = commit_snapshot()
    extract() >> validate() >> committed
    scores = publish_risk_scores()
    matrices = publish_interconnections()
    model = find_champion()
    committed >> model
    score.partial(model=model).expand(shard=list(range(get_settings().shards))) >> scores
    committed >> interconnect.expand(method=list(METHOD_NAMES)) >> matrices
    written = report()
    scores >> watch_outcomes() >> written
    [scores, matrices] >> written


nightly()
