"""Fourteen days around a night, seven behind it and seven to be extracted, planned, run and compared as a user does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from ml.common.files import sha256_file
from ml.settings import Role, get_settings
from tests.e2e.deployment import Deployment, deployed

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(7200)]

LATE = """
select count(*) from ehr.condition_occurrence
where recorded_at >= %s and recorded_at < %s and condition_start_date < recorded_at::date - 2
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One night with a model, and a hospital that has lived a week longer."""
    with deployed(tmp_path_factory.mktemp("fortnight") / "vigil", {"VIGIL_REVIEW": "auto"}) as found:
        night = found.vigil("night", timeout=3000)
        assert night.returncode == 0, night.stdout[-2000:] + night.stderr[-2000:]
        get_settings.cache_clear()
        lived = found.vigil("demo", "advance", "--to", str(_night(found) + timedelta(days=7)))
        assert lived.returncode == 0, lived.stderr
        yield found


@pytest.fixture(scope="module")
def night(deployment: Deployment) -> date:
    return _night(deployment)


def _night(deployment: Deployment) -> date:
    """The day of the only night that has run."""
    ((day,),) = deployment.query(Role.READ, "select min(as_of) from published.releases")
    assert isinstance(day, date)
    return day


def _ask(deployment: Deployment, *words: str) -> list[dict[str, object]]:
    answer = deployment.vigil("backfill", *words, "--json")
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, object]] = json.loads(answer.stdout)["days"]
    return found


def _committed(deployment: Deployment) -> dict[str, str]:
    """Every file of the committed partitions and its digest."""
    log = deployment.home / "data" / "event_log" / "partitions"
    manifests = [Path(path) for path in log.glob("*/manifest.json")]
    files = [f for manifest in manifests for f in manifest.parent.rglob("*") if f.is_file()]
    return {str(file): sha256_file(file) for file in files}


def test_a_fortnight_is_planned_run_and_compared(deployment: Deployment, night: date) -> None:
    from ml.extraction import load_snapshot, read_view

    first, last = night - timedelta(days=7), night + timedelta(days=7)
    where = ("--from", str(first), "--to", str(last))
    base = _committed(deployment)
    assert base

    planned = _ask(deployment, "plan", *where)
    assert [day["as_of"] for day in planned if not day["would_run"]] == [str(night)]
    assert [day["as_of"] for day in planned if day["covered_by"] is None] == [
        str(night + timedelta(days=k)) for k in range(1, 8)
    ]
    assert deployment.query(Role.EXTRACT, LATE, (first, last + timedelta(days=1)))[0][0] > 0

    ran = deployment.vigil("backfill", "run", *where, timeout=4000)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" success ") == 14
    print(ran.stdout)

    found = _ask(deployment, "diff", *where)
    assert {one["outcome"] for one in found if one["as_of"] != str(night)} == {"first"}
    assert {one["outcome"] for one in found if one["as_of"] == str(night)} == {"kept"}
    current = deployment.query(Role.READ, "select table_name, as_of from published.current_releases order by 1")
    assert current == [("disease_interconnections", last), ("risk_scores", last)]
    for k in range(-7, 8):
        day = night + timedelta(days=k)
        snapshot = load_snapshot(day)
        newest = max(read_view(snapshot, day, shard)["recorded_at"].max() for shard in range(snapshot.shards))  # type: ignore[type-var]
        assert newest.date() <= day  # type: ignore[union-attr]
    assert {file: digest for file, digest in _committed(deployment).items() if file in base} == base


def test_what_a_rerun_changed_is_shown_and_nothing_else_moves(deployment: Deployment, night: date) -> None:
    from infra.embedded.environment import update

    where = ("--from", str(night - timedelta(days=2)), "--to", str(night - timedelta(days=1)))
    assert deployment.vigil("backfill", "run", *where).returncode in (0, 5)  # 5: they were run by the test above
    current = deployment.query(Role.READ, "select * from published.current_releases order by 1")
    files = _committed(deployment)
    update(deployment.home, {"VIGIL_MIN_CELL": "30"})

    left = deployment.vigil("backfill", "run", *where)
    assert left.returncode == 5
    assert "every one of these days has a run" in left.stderr
    both = deployment.vigil("backfill", "run", *where, "--reprocess", "completed", "--max-active", "2", timeout=1400)
    assert both.returncode == 0, both.stdout + both.stderr  # two nights at once take turns at the event log

    found = _ask(deployment, "diff", *where)
    assert {one["outcome"] for one in found if one["table"] == "risk_scores"} == {"same rows"}
    pairs = [one for one in found if one["table"] == "disease_interconnections"]
    assert {one["outcome"] for one in pairs} == {"changed"}
    parts = [part for one in pairs for part in one["parts"]]  # type: ignore[attr-defined]
    # Fewer pairs are tested, so p-values are adjusted for fewer; no weight moves, and what has no p-value stays.
    assert all(part["added"] == part["mean_change"] == 0 < part["removed"] for part in parts), parts
    assert [part["changed"] for part in parts if part["part"] == "jaccard"] == [0, 0], parts
    assert deployment.query(Role.READ, "select * from published.current_releases order by 1") == current
    assert _committed(deployment) == files
