"""A night whose every part is invented: event log, evaluation, decision, published rows."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime

import numpy as np

from ml.cohorts.runs import TrainingRun
from ml.common.db import connect, execute
from ml.common.files import write_json
from ml.evaluation.judge import compare
from ml.evaluation.results import Evaluation
from ml.evaluation.rows import JudgedRows
from ml.extraction.log import Partition, write_committed, write_pending
from ml.extraction.snapshot import Snapshot
from ml.extraction.snapshots import save_snapshot
from ml.quality.verdict import Result, Verdict, write_verdict
from ml.settings import Role, get_settings

AS_OF = date(2019, 6, 30)
DIGEST = "c0ffee" * 10 + "beef"
PAIRS = (
    ("E11", "N18", 3.4),
    ("E11", "I50", 2.2),
    ("I10", "I50", 2.8),
    ("I10", "I63", 2.1),
    ("I48", "I63", 3.1),
    ("K86", "C25", 6.2),
    ("E66", "E11", 3.9),
    ("E66", "G47", 4.4),
    ("F17", "J44", 5.1),
    ("J44", "I50", 1.9),
    ("K70", "K74", 7.3),
    ("R63", "C25", 3.6),
    ("N18", "D63", 5.6),
    ("I25", "I50", 3.3),
    ("M05", "M81", 1.8),
    ("E03", "E78", 1.5),
    ("F32", "F41", 3.2),
    ("I50", "I48", 2.4),
    ("E78", "I25", 2.0),
    ("B18", "C22", 8.1),
)


def make_log(*, passed: bool = True) -> Snapshot:
    """A committed partition with its verdict, and the snapshot."""
    rows = {"condition_occurrence": 182_344, "measurement": 240_120, "drug_exposure": 98_411, "death": 812}
    source = {"name": "omop", "schema": "ehr", "hospital": "demo"}
    partition = Partition(AS_OF, None, AS_OF, source, "kept", 2, "attempt", rows=rows, removed=311)
    write_pending(partition)
    results = (
        Result("not_before_birth", "condition_occurrence", "warn" if passed else "block", 182_344, 40, passed, "look"),
        *(Result(f"known_{k}", "partition", "pass", 1000, 0, False, "") for k in range(14)),
    )
    write_verdict(partition, Verdict(AS_OF, passed, False, 521_687, 40, results))
    write_committed(partition)
    snapshot = Snapshot(AS_OF, DIGEST, (str(AS_OF),), {"ICD10CM": 182_344, "ATC": 98_411, "LOINC": 240_120}, 20_000, 2)
    save_snapshot(snapshot)
    return snapshot


def make_evaluation(snapshot: Snapshot, *, regression_wins: bool = False, rare: bool = False) -> TrainingRun:
    """An evaluation by the real code, on invented risks; ``rare`` leaves no event to judge."""
    rng = np.random.default_rng(1)
    settings = get_settings()
    days = tuple(date(2019 - k, 6, 30) for k in range(1, 6))
    run = TrainingRun(snapshot, days, settings.data_dir / "training" / f"{AS_OF}-{snapshot.digest[:12]}")
    noise = {"oracle": 0.0, "medbert": 0.7, "logistic_regression": 0.3 if regression_wins else 0.9, "age_sex": 1.8}
    rows = {}
    for k, task in enumerate(settings.tasks):
        truth = rng.normal(-2.6 - 0.3 * k, 1.1, 5000) - (30 if rare else 0)
        y = rng.random(5000) < 1 / (1 + np.exp(-truth))
        answers = {m: 1 / (1 + np.exp(-(truth + rng.normal(0, s, 5000)))) for m, s in noise.items()}
        rows[task] = JudgedRows(task, np.arange(5000) // 5, np.arange(5000) % 5 == 0, y, answers)
    compare(run, rows, []).save(run.evaluation)
    checks = [{"passed": True, "blocking": True, "sentence": "heart failure: 312 held-out events, 50 are needed"}]
    write_json(run.path / "gate.json", {"passed": True, "reason": "passed on 4 outcomes", "checks": checks})
    return run


def decide(run: TrainingRun, *, by_policy: bool, decision: str = "approved", promote: bool = True) -> None:
    """A decision row on the run's evaluation, and the promotion that follows."""
    digest, decision_id = Evaluation.load(run.evaluation).digest, str(uuid.uuid4())
    values = {
        "id": decision_id,
        "model": get_settings().model_name,
        "decision": decision,
        "by": "policy" if by_policy else "dr.chen",
        "by_policy": by_policy,
        "digest": digest,
    }
    with connect(Role.GOVERN) as connection:
        execute(
            connection,
            "insert into governance.decisions values (%(id)s, %(model)s, 3, %(decision)s, %(by)s, %(by_policy)s,"
            " 'retraining', 'invented', 'm', 's', %(digest)s, '2019-07-01 02:30+00', '2019-07-15 02:30+00')",
            values,
        )
        if promote and decision == "approved":
            statement = (
                "insert into governance.promotions values (gen_random_uuid(), %(model)s, 3, %(id)s, 'promote', 'x')"
            )
            execute(connection, statement, values)


def _release(table: str, rows: int, as_of: date = AS_OF) -> str:
    release_id = str(uuid.uuid4())
    values = {"id": release_id, "table": table, "as_of": as_of, "digest": DIGEST, "rows": rows}
    with connect(Role.PUBLISH) as connection:
        execute(
            connection,
            "insert into published.releases values (%(id)s, %(table)s, %(as_of)s, 'run', 1,"
            " case when %(table)s = 'risk_scores' then 3 end, %(digest)s, %(rows)s, 'd', '2019-07-01 02:41+00')",
            values,
        )
        statement = "insert into published.current_releases values (%(table)s, %(id)s, %(as_of)s, 1)"
        execute(connection, statement, values)
        kind = "create table published.risk_1 partition of published.risk_scores default"
        other = "create table published.pairs_1 partition of published.disease_interconnections default"
        execute(connection, kind if table == "risk_scores" else other)
    return release_id


def publish_risks(people: int = 300) -> str:
    """Scores of ``people`` patients; the last 20 of them out of scope, one of these for a rare reason."""
    release_id = _release("risk_scores", people * len(get_settings().tasks))
    with connect(Role.PUBLISH) as connection, connection.cursor() as cursor:
        for outcome in get_settings().tasks:
            for k in range(people):
                inside = k < people - 20
                reason = None if inside else "deceased" if k == people - 1 else "under 18"
                values = (
                    release_id,
                    f"secret-{k:04d}",
                    AS_OF,
                    outcome,
                    365,
                    0.02 + 0.1 * k / people if inside else None,
                )
                rest = (inside, reason, "vigil-risk", 3, "policy", DIGEST, datetime(2019, 7, 1, tzinfo=UTC))
                cursor.execute(
                    "insert into published.risk_scores values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    values + rest,
                )
    return release_id


def publish_pairs(as_of: date = AS_OF, pairs: tuple[tuple[str, str, float], ...] = PAIRS) -> str:
    """Two methods' pairs, one directed with intervals, one not."""
    release_id = _release("disease_interconnections", 2 * len(pairs), as_of)
    made = datetime(2019, 7, 1, tzinfo=UTC)
    with connect(Role.PUBLISH) as connection, connection.cursor() as cursor:
        for source, target, weight in pairs:
            a, b = f"ICD10CM//{source}", f"ICD10CM//{target}"
            risk = (
                "relative_risk",
                a,
                b,
                True,
                weight,
                "incidence-rate ratio",
                weight * 0.8,
                weight * 1.25,
                1e-6,
                True,
            )
            first, second = sorted((a, b))
            jaccard = ("jaccard", first, second, False, weight / 40, "Jaccard index", None, None, None, None)
            for row in (risk, jaccard):
                cursor.execute(
                    "insert into published.disease_interconnections values"
                    " (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 900, 700, 120, %s, %s)",
                    (release_id, as_of, *row, DIGEST, made),
                )
    return release_id
