"""The whole: two nights of 2,500 patients through the real scheduler, as a user runs and reviews them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock

import pytest

from ml.settings import Role, get_settings
from tests.e2e.deployment import Deployment, deployed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

OUTCOMES = {"death", "heart_failure", "stroke", "type_2_diabetes"}
CANARY = "CANARY7Q4X"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A person reviews."""
    with deployed(tmp_path_factory.mktemp("night") / "vigil", {"VIGIL_REVIEW": "human"}) as found:
        yield found


@pytest.fixture(scope="module")
def first(deployment: Deployment) -> subprocess.CompletedProcess[str]:
    """The first night: its model waits for a person, who approves it."""
    night = deployment.start("night")
    version = _waiting_version(deployment, night)
    assert version is not None, "".join(night.communicate())[-3000:]
    get_settings.cache_clear()
    assert deployment.query(Role.READ, "select count(*) from published.current_risk_scores") == [(0,)]
    selfish = deployment.vigil("review", "approve", version, "--as", "retraining", "--reason", "I trained it")
    assert selfish.returncode == 5, selfish.stderr
    approval = deployment.vigil("review", "approve", version, "--as", "dr. night", "--reason", "enough to try")
    assert approval.returncode == 0, approval.stderr
    out, err = night.communicate(timeout=600)
    assert night.returncode == 0, out[-3000:] + err[-3000:]
    return subprocess.CompletedProcess(("night",), night.returncode, out, err)


def _waiting_version(deployment: Deployment, night: subprocess.Popen[str]) -> str | None:
    """The version that waits for review, as soon as there is one; None where the night ended without."""
    judged = {*(deployment.home / "data" / "training").glob("*/gate.json")}
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline and night.poll() is None:
        if {*(deployment.home / "data" / "training").glob("*/gate.json")} == judged:
            time.sleep(2)  # not yet: asking the command line costs the training its cores
            continue
        listed = deployment.vigil("review", "list", "--json")
        found = json.loads(listed.stdout) if listed.returncode == 0 else []
        waiting = [review for review in found if review["state"] == "waiting"]
        if waiting:
            return str(waiting[0]["model"]["version"])
        time.sleep(3)
    return None


def _rows_by_release(deployment: Deployment) -> dict[str, tuple[int, str]]:
    """Rows and a digest of all their values, by release, of both tables."""
    found = {}
    for table in ("risk_scores", "disease_interconnections"):
        query = (
            f"select release_id::text, count(*), md5(string_agg(r::text, '|' order by r::text)) "  # noqa: S608
            f"from published.{table} r group by 1"
        )
        found |= {release: (count, digest) for release, count, digest in deployment.query(Role.PUBLISH, query)}
    return found


def test_a_first_night_publishes_risks_and_interconnections(
    deployment: Deployment, first: subprocess.CompletedProcess[str]
) -> None:
    risks = deployment.query(
        Role.READ, "select outcome, count(*), count(risk) from published.current_risk_scores group by 1"
    )
    assert {outcome for outcome, _, _ in risks} == OUTCOMES
    assert len({count for _, count, _ in risks}) == 1
    assert all(0 < scored < count for _, count, scored in risks)
    pairs = deployment.query(
        Role.READ,
        "select method, count(*), min(least(n_source, n_target, n_both)) "
        "from published.current_disease_interconnections group by 1",
    )
    assert {method for method, _, _ in pairs} == {"jaccard", "fisher", "relative_risk"}
    assert all(smallest >= 11 for _, _, smallest in pairs)


def test_the_summary_says_what_was_done_and_by_whose_decision(first: subprocess.CompletedProcess[str]) -> None:
    for words in ("events extracted", "passed", "let through by dr. night", "AUROC", "report", "current"):
        assert words in first.stdout
    for task in ("extract", "validate", "pretrain", "finetune", "promote", "publish_risk_scores"):
        assert task in first.stdout


def test_the_command_line_reads_what_was_published(
    deployment: Deployment, first: subprocess.CompletedProcess[str]
) -> None:
    risks = json.loads(deployment.vigil("show", "risk", "--outcome", "death", "--top", "5", "--json").stdout)
    assert len(risks["risks"]) == 5
    assert risks["about"]["decision"] == "human"
    assert risks["about"]["decided_by"] == "dr. night"
    pairs = json.loads(deployment.vigil("show", "interconnections", "--code", "I10", "--json").stdout)
    assert pairs
    assert "dr. night" in deployment.vigil("review", "list").stdout


def test_the_report_is_whole_and_needs_no_network(
    deployment: Deployment, first: subprocess.CompletedProcess[str]
) -> None:
    (report,) = (deployment.home / "data" / "reports").glob("*.html")
    text = report.read_text()
    assert text.count("<svg") >= 4
    assert "src=" not in text.replace('src="data:', "")
    assert "<script" not in text


def test_a_second_night_adds_one_day_changes_no_row_of_the_first_and_leaks_no_value(
    deployment: Deployment, first: subprocess.CompletedProcess[str]
) -> None:
    before = _rows_by_release(deployment)
    ((day,),) = deployment.query(Role.READ, "select distinct as_of from published.current_risk_scores")
    _plant_canary(deployment, day + timedelta(days=1))
    assert deployment.vigil("stack", "down").returncode == 0
    assert _processes(deployment) == []
    night = deployment.start("night")  # starts the stack again and finds everything as it was
    challenger = _waiting_version(deployment, night)  # the gate may as well refuse it, on so few patients
    if challenger is not None:
        answer = deployment.vigil("review", "reject", challenger, "--as", "dr. night", "--reason", "no better")
        assert answer.returncode == 0, answer.stderr
    out, err = night.communicate(timeout=600)
    assert night.returncode == 0, out[-3000:] + err[-3000:]
    after = _rows_by_release(deployment)
    assert {release: after[release] for release in before} == before
    days = deployment.query(
        Role.READ,
        "select distinct as_of from published.current_risk_scores "
        "union select distinct as_of from published.current_disease_interconnections",
    )
    assert days == [(day + timedelta(days=1),)]
    assert _places_with_the_canary(deployment) == []


def test_of_two_runs_of_a_past_day_at_once_one_is_published_and_the_other_refused(
    deployment: Deployment, first: subprocess.CompletedProcess[str]
) -> None:
    ((newest,),) = deployment.query(Role.READ, "select max(as_of) from published.current_releases")
    day = newest - timedelta(days=3)
    where = ("--from", day.isoformat(), "--to", day.isoformat())
    (planned,) = json.loads(deployment.vigil("backfill", "plan", *where, "--json").stdout)["days"]
    assert (planned["would_run"], planned["hindrance"]) == (True, None)
    assert planned["covered_by"] is not None
    assert planned["releases"]["risk_scores"] == "first release by version 1"
    current = deployment.query(Role.READ, "select * from published.current_releases order by 1")

    backfill = deployment.start("backfill", "run", *where)
    assert _wait_for_claim(deployment, day) == f"backfill__{day + timedelta(days=1)}T02:00:00+00:00"
    state = _run_a_rival(day)
    out, err = backfill.communicate(timeout=300)
    assert (backfill.returncode, state) == (1, "success"), out + err
    assert f"another run of nightly for {day} began later and holds the day (rival)" in out

    answer = deployment.vigil("backfill", "diff", *where, "--json")
    found = {one["table"]: one for one in json.loads(answer.stdout)["days"]}
    assert {one["outcome"] for one in found.values()} == {"first"}
    assert {one["after"]["run_id"] for one in found.values()} == {"rival"}
    assert found["risk_scores"]["after"]["model_version"] == 1
    assert found["risk_scores"]["after_made"]["model_name"] == "vigil-risk"
    assert {part["part"] for part in found["risk_scores"]["parts"]} == OUTCOMES
    assert deployment.query(Role.READ, "select * from published.current_releases order by 1") == current


def _wait_for_claim(deployment: Deployment, day: date) -> str:
    """The run that holds a day, as soon as one does."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        held = deployment.query(Role.READ, "select run_id from runs.claims where as_of = %s", (day,))
        if held:
            return str(held[0][0])
        time.sleep(0.5)
    return "nobody"


def _run_a_rival(day: date) -> str:
    """Start another run of a day, with a logical date of its own; the state in which it ends."""
    from infra.airflow.api import AirflowApi

    api = AirflowApi(get_settings().airflow_url)
    start = datetime.combine(day, clock(2), UTC)
    api.trigger("nightly", "rival", start + timedelta(hours=10), start, start + timedelta(days=1))
    deadline = time.monotonic() + 300
    while (state := str(api.dag_run("nightly", "rival")["state"])) not in ("success", "failed"):
        assert time.monotonic() < deadline
        time.sleep(1)
    return state


def _processes(deployment: Deployment) -> list[int]:
    """Living processes that were started for the deployment."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(deployment.home) in " ".join((*process.cmdline(), *process.environ().values())):
                found.append(process.pid)
    return found


def _plant_canary(deployment: Deployment, day: date) -> None:
    """A diagnosis nobody else has, recorded on the day: whatever shows it has let a patient's value out."""
    from ml.common.db import connect, execute

    with connect(Role.LOAD) as connection:
        execute(
            connection,
            "insert into ehr.condition_occurrence (condition_occurrence_id, person_id, condition_concept_id, "
            "condition_start_date, condition_type_concept_id, condition_source_value, condition_source_concept_id, "
            "recorded_at) select 9000000000, min(person_id), 0, %(day)s, 32817, %(code)s, 0, %(day)s "
            "from ehr.person",
            {"day": day, "code": CANARY},
        )


def _places_with_the_canary(deployment: Deployment) -> list[str]:
    """Files and databases outside the event log and the token stores that hold the canary."""
    restricted = {deployment.home / "data" / "event_log", deployment.home / "data" / "training"}
    files = [
        str(path)
        for path in deployment.home.rglob("*")
        if path.is_file() and not restricted & set(path.parents) and CANARY.encode() in path.read_bytes()
    ]
    databases = [name for name in ("airflow", "mlflow", "vigil") if CANARY in _dump(deployment, name)]
    return files + databases


def _dump(deployment: Deployment, database: str) -> str:
    """All tables of a database as text, the quarantine (restricted, by design with its patient) left out."""
    import psycopg2

    from infra.embedded import postgres

    text = []
    with psycopg2.connect(postgres.start(deployment.home).dsn(database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select format('%I.%I', table_schema, table_name) from information_schema.tables where table_type = "
            "'BASE TABLE' and table_schema not in ('pg_catalog', 'information_schema', 'restricted')"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"select string_agg(t::text, ' ') from {table} t")  # noqa: S608
            text.append((cursor.fetchone() or ("",))[0] or "")
    return " ".join(text)
