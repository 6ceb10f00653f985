"""What was published of a day before and after a moment: which release, by which model, and how the rows differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ml.common.claims import Claim, hold
from ml.common.db import connect, fetch
from ml.common.errors import RefusedError
from ml.publication.history import DayDiff, PartDiff, answers, compare_days
from ml.publication.releases import release, rollback
from ml.publication.types import INTERCONNECTIONS, RISK_SCORES, Origin, Release
from ml.settings import Role, Settings

DAY, LATER = date(2020, 1, 10), date(2020, 1, 11)
MADE = datetime(2020, 1, 11, 2, 5, tzinfo=UTC)
SNAPSHOT = "5" * 64
SCORES = {"a": 0.10, "b": 0.20, "c": 0.30, "d": None}  # d is out of scope


def publish_scores(
    scores: dict[str, float | None], version: int = 1, day: date = DAY, snapshot: str = SNAPSHOT, **more: object
) -> Release:
    """Scores of one outcome, by a letter that stands for a patient."""
    facts = {"model_name": "vigil-risk", "decision": "human"}
    columns = {
        "pseudonym": [letter * 32 for letter in scores],
        "risk": pa.array(list(scores.values()), pa.float32()),
        "in_scope": [risk is not None for risk in scores.values()],
        "scope_reason": [None if risk is not None else "under 18" for risk in scores.values()],
    }
    same = {"as_of": day, "outcome": "stroke", "horizon_days": 365, "model_version": version, **facts}
    rows = pa.table({**columns, **{k: [v] * len(scores) for k, v in {**same, "snapshot_digest": snapshot}.items()}})
    origin = Origin(day, "run", snapshot, MADE, facts, version)
    return release(RISK_SCORES, rows, origin, {"subjects": len(scores)}, **more)  # type: ignore[arg-type]


def publish_pairs(weights: dict[str, float], day: date = DAY) -> Release:
    """Pairs of E11 with other codes by one method."""
    same = {
        "as_of": day,
        "method": "jaccard",
        "source_code": "ICD10CM//E11",
        "directed": False,
        "weight_meaning": "a share",
        "n_source": 100,
        "n_target": 200,
        "n_both": 60,
        "snapshot_digest": SNAPSHOT,
    }
    rows = pa.table(
        {
            **{name: [value] * len(weights) for name, value in same.items()},
            "target_code": [f"ICD10CM//{code}" for code in weights],
            "weight": list(weights.values()),
            **{name: pa.nulls(len(weights), pa.float64()) for name in ("ci_low", "ci_high", "p_adjusted")},
            "significant": pa.nulls(len(weights), pa.bool_()),
        }
    )
    return release(INTERCONNECTIONS, rows, Origin(day, "run", SNAPSHOT, MADE, {}), {})


def now() -> datetime:
    with connect(Role.READ) as connection:
        found: datetime = fetch(connection, "select clock_timestamp()")[0][0]
    return found


def compare(since: datetime, day: date = DAY) -> dict[str, DayDiff]:
    return {one.table: one for one in compare_days([day], since)}


def test_rows_added_removed_and_changed_are_counted_and_the_risk_is_compared(vigil: Settings) -> None:
    old = publish_scores(SCORES)
    since = now()
    new = publish_scores({"a": 0.15, "b": 0.20, "d": 0.40, "e": 0.50}, version=2, snapshot="6" * 64)
    found = compare(since)["risk_scores"]
    assert found.outcome == "changed"
    assert found.before is not None
    assert found.after is not None
    assert (found.before.release_id, found.before.model_version) == (old.release_id, 1)
    assert (found.after.release_id, found.after.model_version) == (new.release_id, 2)
    assert (found.before.snapshot_digest, found.after.snapshot_digest) == (SNAPSHOT, "6" * 64)
    (part,) = found.parts
    assert part.mean_change == pytest.approx(0.025, abs=1e-6)  # over a and b, which have a risk in both
    assert part == PartDiff("stroke", 4, 4, added=1, removed=1, changed=2, mean_change=part.mean_change)


def test_interconnections_are_compared_by_method(vigil: Settings) -> None:
    publish_pairs({"I10": 0.2, "I50": 0.3})
    since = now()
    publish_pairs({"I10": 0.2, "I50": 0.4, "N18": 0.1})
    found = compare(since)["disease_interconnections"]
    assert [(p.part, p.added, p.removed, p.changed) for p in found.parts] == [("jaccard", 1, 0, 1)]
    assert found.parts[0].mean_change == pytest.approx(0.05)


def test_a_day_names_the_model_that_scored_it_and_when(vigil: Settings) -> None:
    publish_scores(SCORES, version=4)
    found = compare(MADE)["risk_scores"]
    assert found.after_made is not None
    assert (found.after_made.model_name, found.after_made.made_at) == ("vigil-risk", MADE)
    assert found.after is not None
    assert found.after.model_version == 4


def test_a_first_release_is_all_added_and_a_day_never_published_is_said_so(vigil: Settings) -> None:
    since = now()
    publish_scores(SCORES)
    found = compare(since)
    assert found["risk_scores"].outcome == "first"
    assert found["risk_scores"].parts[0].added == 4
    assert found["disease_interconnections"].outcome == "not published"


def test_the_same_rows_published_again_are_told_from_a_day_not_published_again(vigil: Settings) -> None:
    publish_scores(SCORES), publish_pairs({"I10": 0.2})
    since = now()
    assert not publish_scores(SCORES).new
    found = compare(since)
    assert (found["risk_scores"].outcome, found["risk_scores"].parts) == ("same rows", ())
    assert found["disease_interconnections"].outcome == "kept"


def test_rows_that_come_back_are_the_answer_again(vigil: Settings) -> None:
    first = publish_scores(SCORES)
    publish_scores({"a": 0.9})
    since = now()
    publish_scores(SCORES)
    found = compare(since)["risk_scores"]
    assert found.outcome == "changed"
    assert found.after is not None
    assert found.after.release_id == first.release_id


def test_a_rollback_is_in_the_history_under_the_name_of_who_did_it(vigil: Settings) -> None:
    first = publish_scores(SCORES)
    publish_scores(SCORES, day=LATER)
    rollback("risk_scores", "dr.chen")
    assert [(a.release_id, a.run_id) for a in answers(DAY, DAY)] == [
        (first.release_id, "run"),
        (first.release_id, "dr.chen"),
    ]


def test_a_diff_shows_no_pseudonym(vigil: Settings) -> None:
    publish_scores(SCORES)
    shown = json.dumps([asdict(one) for one in compare_days([DAY], MADE)], default=str)
    assert "stroke" in shown
    assert not any(letter * 32 in shown for letter in SCORES)


def test_a_run_that_lost_its_day_publishes_nothing(vigil: Settings) -> None:
    def claim(run_id: str) -> Claim:
        return hold("nightly", DAY, run_id, lambda _: False)

    zombie, rival = claim("scheduled"), claim("backfill")
    kept = publish_scores(SCORES, claim=rival)
    with pytest.raises(RefusedError, match=r"\(backfill\)"):
        publish_scores({"a": 0.9}, claim=zombie)
    assert [answer.release_id for answer in answers(DAY, DAY)] == [kept.release_id]
