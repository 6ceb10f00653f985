"""The right to erasure: after one command a patient is nowhere, and nothing else has changed."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from ml.cli import app
from ml.cohorts.splits import split_of
from ml.common.db import connect, fetch
from ml.common.errors import NotFoundError
from ml.extraction import Snapshot, commit_snapshot, extract, load_snapshot, read_view
from ml.extraction import erasure as log_erasure
from ml.extraction.log import committed_partition, committed_partitions, log_directory
from ml.extraction.reconcile import reconcile
from ml.publication.erasure import ERASED_PATIENTS, erase
from ml.publication.pseudonyms import pseudonym_of
from ml.publication.releases import all_releases, release
from ml.publication.types import RISK_SCORES, Origin
from ml.quality import validate
from ml.registry.tracking import GATE, METRICS, MODEL, REQUESTER, RUN, SNAPSHOT, VOCABULARY, connected
from ml.sequences.prepare import make_store
from ml.sequences.vocabulary import EMPTY
from ml.settings import Role, Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml import synthetic_log as synthetic
from tests.ml.small_hospital import BASE, PEOPLE

CANARY = 86_753_092_718  # an id that stands for nothing else
VALUE = "canary-text-4711"
NEXT = BASE + timedelta(days=1)
THIRD = BASE + timedelta(days=2)


@pytest.fixture
def nights(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[date, Snapshot]:
    """Two nights; the canary is known from the second on, in part only to quality, in part only to a correction."""
    monkeypatch.setenv("VIGIL_CALENDAR_END", "2024-12-31")
    get_settings.cache_clear()
    hospital.build()
    first = hospital.night(BASE)
    with hospital.together():
        hospital.add("person", NEXT, person_id=CANARY, gender_concept_id=8507, year_of_birth=1960)
        hospital.add_condition(5001, CANARY, date(2024, 1, 10), 101, recorded=NEXT)
        hospital.add_condition(5002, CANARY, date(2031, 1, 1), 101, recorded=NEXT)  # quality sets it aside
        hospital.add_condition(5005, CANARY, date(2024, 1, 10), 101, recorded=NEXT, removed=True)
        hospital.add_lab(5003, CANARY, NEXT, None, value_source_value=VALUE)
        for key in range(6000, 6040):
            hospital.add_condition(key, 2 + key % 9, NEXT, 102)
    extract(NEXT)
    validate(NEXT)
    second = commit_snapshot(NEXT)
    hospital.add_condition(5004, CANARY, date(2024, 1, 2), 101, recorded=BASE)  # committed late
    assert reconcile().differences == 1
    return {BASE: first, NEXT: second}


def make_derived_files(snapshot: Snapshot) -> None:
    """What training and scoring keep of a patient."""
    run = get_settings().data_dir / "training" / f"{snapshot.as_of}-{snapshot.digest[:12]}"
    for shard in range(snapshot.shards):
        make_store(run / "sequences" / str(snapshot.as_of) / str(shard), snapshot, snapshot.as_of, shard, EMPTY)
    rows = pl.DataFrame({"subject_id": [2, CANARY], "boolean_value": [True, False]})
    for path in ("labels/death.parquet", "predictions/medbert.parquet"):
        (run / path).parent.mkdir(exist_ok=True)
        rows.write_parquet(run / path)
    scores = get_settings().data_dir / "scores" / str(snapshot.as_of) / "1" / "part-000.parquet"
    scores.parent.mkdir(parents=True)
    rows.write_parquet(scores)


def publish(snapshot: Snapshot) -> str:
    """A release with the canary's score."""
    people = [2, 3, CANARY]
    columns: dict[str, Any] = {
        "pseudonym": [pseudonym_of(person) for person in people],
        "outcome": ["death"] * 3,
        "horizon_days": pa.array([365] * 3, pa.int32()),
        "risk": pa.array([0.1, 0.2, 0.3], pa.float32()),
        "in_scope": [True] * 3,
        "scope_reason": pa.array([None] * 3, pa.string()),
    }
    facts = {"model_name": "vigil-risk", "decision": "human"}
    constants = {"as_of": snapshot.as_of, "model_version": 1, "snapshot_digest": snapshot.digest, **facts}
    rows = pa.table(columns)
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), 3))
    made = datetime(2024, 2, 2, 2, tzinfo=UTC)
    return release(RISK_SCORES, rows, Origin(snapshot.as_of, "night", snapshot.digest, made, facts, 1), {}).release_id


def register(as_of: date) -> str:
    """A model version of a snapshot, by its tags alone."""
    name = get_settings().model_name
    tags = {RUN: f"{as_of}-0123456789ab", GATE: "passed", REQUESTER: "retraining"}
    tags |= dict.fromkeys((MODEL, SNAPSHOT, METRICS, VOCABULARY), "0" * 64)
    with connected() as client:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        run = client.create_run("0").info
        return str(client.create_model_version(name, run.artifact_uri, run.run_id, tags=tags).version)


def traces() -> list[str]:
    """Every file and table in which the canary is found."""
    needles = [str(CANARY), pseudonym_of(CANARY), VALUE]
    found = []
    for path in sorted(get_settings().home.rglob("*")):
        if path.is_file() and any(needle in _text(path) for needle in needles):
            found.append(str(path.relative_to(get_settings().home)))
    with connect(Role.MIGRATE) as connection:
        tables = fetch(
            connection,
            "select format('%I.%I', schemaname, tablename) from pg_tables "
            "where schemaname in ('restricted', 'governance', 'published')",
        )
    for (table,) in tables:
        for role in (Role.QUALITY, Role.PUBLISH, Role.GOVERN):
            if any(needle in _dump(role, table) for needle in needles):
                found.append(table)
                break
    return found


def _text(path: Path) -> str:
    if path.suffix == ".parquet":
        return str(pl.read_parquet(path).to_dicts())
    if path.suffix == ".npy":
        return str(np.load(path).tolist())
    return path.read_text(errors="replace")


def _dump(role: Role, table: str) -> str:
    from psycopg2 import Error, sql

    try:
        with connect(role) as connection:
            return str(fetch(connection, sql.SQL("select * from {}").format(sql.Identifier(*table.split(".")))))
    except Error:  # not this role's
        return ""


@pytest.fixture
def everywhere(nights: dict[date, Snapshot]) -> dict[date, Snapshot]:
    """The canary is in the log, files, quarantine, a release; two models, one of which saw it."""
    make_derived_files(nights[NEXT])
    publish(nights[NEXT])
    register(BASE)
    register(NEXT)
    places = traces()
    for needle in ("part-", "vital-", "corrections", "quarantine", "subjects.npy", "labels", "predictions", "scores"):
        assert any(needle in place for place in places), f"the test planted no canary in {needle}"
    assert {"restricted.quarantine"} < set(places)
    return nights


def test_after_one_command_the_patient_is_nowhere_and_nothing_else_has_changed(
    everywhere: dict[date, Snapshot], caplog: pytest.LogCaptureFixture
) -> None:
    others = hospital.view(everywhere[NEXT]).filter(pl.col("subject_id") != CANARY)
    first = load_snapshot(BASE)
    command = ["erase", "--subject", str(CANARY), "--reason", "asked for", "--as", "dpo", "--yes", "--json"]
    with caplog.at_level(logging.DEBUG):
        result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert traces() == []
    for text in (caplog.text, result.output):
        assert str(CANARY) not in text
        assert pseudonym_of(CANARY) not in text
    renewed = load_snapshot(NEXT)
    assert renewed.former_digests == (everywhere[NEXT].digest,)
    assert renewed.digest not in renewed.former_digests
    assert hospital.view(renewed).equals(others)
    assert load_snapshot(BASE) == first, "the canary was not known yet"
    assert told["snapshots"] == {str(NEXT): {"old": everywhere[NEXT].digest, "new": renewed.digest}}
    assert told["models"] == {"2": split_of(CANARY, get_settings().split_salt)}
    assert (sum(told["releases"].values()), told["partitions"], told["quarantined"]) == (1, 1, 1)
    _check_records(told)


def _check_records(told: dict[str, Any]) -> None:
    erasures = hospital.ask(Role.READ, "select erasure_id::text, erased_by, reason, published from governance.erasures")
    assert erasures == [(told["erasure_id"], "dpo", "asked for", 1)]
    digests = hospital.ask(Role.READ, "select as_of, old_digest, new_digest from governance.erased_snapshots")
    assert digests == [(NEXT, *told["snapshots"][str(NEXT)].values())]
    assert hospital.ask(Role.READ, "select model_version from governance.erased_models") == [(2,)]
    with connected() as client:
        tags = [client.get_model_version(get_settings().model_name, version).tags for version in ("1", "2")]
    assert [ERASED_PATIENTS in tag for tag in tags] == [False, True]


def test_manifests_count_what_is_left(everywhere: dict[date, Snapshot]) -> None:
    before = committed_partition(NEXT)
    erase(CANARY, "asked for", "dpo")
    after = committed_partition(NEXT)
    assert before is not None
    assert after is not None
    lost = {kind: before.rows[kind] - after.rows[kind] for kind in before.rows if before.rows[kind] != after.rows[kind]}
    assert lost == {"person": 4, "condition_occurrence": 3, "measurement": 1}
    assert (before.removed - after.removed, after.erased) == (3, 1)  # a tombstone, a race and a site not known
    codes = pl.read_parquet(str(after.path / "codes.parquet"))
    assert codes["rows"].sum() == sum(after.rows.values()) - after.removed
    assert "quarantine.parquet" in after.files


def test_counts_are_right_where_one_query_makes_events_of_several_tables(tmp_path: Path) -> None:
    with synthetic.deployment(tmp_path, pseudonym_key="0123456789abcdef" * 4):
        people = pl.concat([synthetic.person(who) for who in range(3)])
        rare = synthetic.event(1, "ICD10CM//Z99.9", "2020-01-01")
        events = synthetic.as_events(pl.concat([people, rare]))
        synthetic.commit(events.with_columns(source_key=pl.format("another/{}", pl.col("source_key"))))
        log_erasure.erase_from_log(2)
        (after,) = committed_partitions()
        assert after.rows == {"row": 4}
        codes = pl.read_parquet(str(after.path / "codes.parquet"))
        assert dict(codes.select("code", "rows").iter_rows()) == {"GENDER//F": 2, "MEDS_BIRTH": 2}


def test_the_patient_does_not_come_back_with_the_next_night_though_the_source_holds_it(
    everywhere: dict[date, Snapshot],
) -> None:
    erase(CANARY, "asked for", "dpo")
    hospital.add_condition(5010, CANARY, THIRD, 101)
    hospital.add_condition(5011, 3, THIRD, 101)
    view = hospital.view(hospital.night(THIRD))
    assert CANARY not in view["subject_id"]
    assert hospital.codes_of(view, "condition_occurrence/5011") == ["ICD10CM//I50.9"]
    assert reconcile().differences == 0, "and is not missed"
    assert all(str(CANARY) not in place for place in traces())


@pytest.mark.parametrize("step", ["suppress", "_erase_from", "_renew_snapshots"])
def test_an_erasure_that_died_is_completed_by_the_next(
    everywhere: dict[date, Snapshot], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log_erasure, step, die)
        with pytest.raises(KeyboardInterrupt):
            erase(CANARY, "asked for", "dpo")
    found = erase(CANARY, "asked for", "dpo")
    assert traces() == []
    assert found.snapshots[NEXT] == (everywhere[NEXT].digest, load_snapshot(NEXT).digest)
    assert list((log_directory() / "erasures").glob("*.json")) == []


def test_a_patient_whom_the_log_does_not_hold_is_refused_and_nothing_is_recorded(nights: dict[date, Snapshot]) -> None:
    with pytest.raises(NotFoundError, match="holds no row of this subject"):
        erase(999, "asked for", "dpo")
    assert hospital.ask(Role.READ, "select count(*) from governance.erasures") == [(0,)]
    assert not (log_directory() / "suppressed.json").exists()


def test_without_a_yes_nothing_is_erased(nights: dict[date, Snapshot]) -> None:
    command = ["erase", "--subject", str(CANARY), "--reason", "asked for"]
    assert CliRunner().invoke(app, command, input="n\n").exit_code == 1
    assert sum(read_view(nights[NEXT], NEXT, s)["subject_id"].eq(CANARY).sum() for s in range(4)) == 4
    assert len(committed_partitions()) == 2
    assert all_releases() == []
    assert hospital.view(nights[NEXT])["subject_id"].n_unique() == PEOPLE + 1
