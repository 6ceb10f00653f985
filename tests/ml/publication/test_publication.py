"""The two publications of a night on real Postgres and MLflow, and what the command line shows of them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from ml.common.db import connect, fetch
from ml.common.errors import NotFoundError, RefusedError
from ml.common.files import write_json
from ml.extraction.snapshot import Snapshot
from ml.extraction.snapshots import save_snapshot
from ml.interconnections import METHOD_NAMES, matrix_path
from ml.interconnections.matrix import InterconnectionMatrix, Pairs, Provenance
from ml.publication import publish_interconnections, publish_risk_scores
from ml.publication.commands import publish as publish_app
from ml.publication.commands import show
from ml.registry import champion, promote, register
from ml.registry.commands import model as model_app
from ml.registry.commands import review
from ml.scoring import SCORE_SCHEMA, provenance, score_path
from ml.settings import Role, Settings
from tests.ml.invented_runs import make_run

DAY = date(2020, 1, 10)
SUBJECTS = (900001, 900002, 900003)


@pytest.fixture
def snapshot(vigil: Settings) -> Snapshot:
    made = Snapshot(DAY, "c" * 64, ("2020-01-10",), {"ICD10CM": 10}, len(SUBJECTS), 2)
    save_snapshot(made)
    return made


def let_a_model_through(seed: int = 1) -> int:
    version = register(make_run(seed=seed)).version
    words = ["approve", str(version), "--reason", "looks right", "--as", "dr. a"]
    assert CliRunner().invoke(review, words).exit_code == 0
    promote(version)
    return version


def write_scores(snapshot: Snapshot, version: int, weights: str | None = None) -> None:
    """Scores as the scoring stage leaves them: the third subject is out of scope."""
    found = champion()
    assert found is not None
    made_from = provenance(snapshot, found.finetuned) | ({"model.safetensors": weights} if weights else {})
    for shard in range(snapshot.shards):
        rows = [
            (
                subject,
                "heart_failure",
                365,
                0.1 * place if place < 3 else None,
                place < 3,
                None if place < 3 else "dead",
            )
            for place, subject in enumerate(SUBJECTS, 1)
            if subject % snapshot.shards == shard
        ]
        path = score_path(snapshot.as_of, version, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame(rows, schema=SCORE_SCHEMA, orient="row").write_parquet(path)
        write_json(path.with_suffix(".json"), made_from)


def write_matrices(snapshot: Snapshot, both: int = 40) -> None:
    """Three pairs by each method; the last two have few patients."""
    nothing = np.full(3, np.nan)
    for method in METHOD_NAMES:
        pairs = Pairs(
            source=np.array([0, 0, 1], np.int32),
            target=np.array([1, 2, 2], np.int32),
            weight=np.array([0.4, 0.3, 0.2]),
            ci_low=nothing,
            ci_high=nothing,
            p_value=nothing,
            p_adjusted=nothing,
            n_both=np.array([both, 5, 10]),
        )
        provenance = Provenance(method, snapshot.as_of, snapshot.digest, {}, 500, 0, 0, 0)
        codes = ("ICD10CM//E11", "ICD10CM//I10", "ICD10CM//I50")
        matrix = InterconnectionMatrix(codes, np.array([100, 90, 50]), pairs, False, "a share", provenance)
        matrix.save(matrix_path(method, snapshot.as_of))


def test_a_night_s_scores_are_published_under_pseudonyms_with_the_decision_behind_them(
    tracked: Settings, snapshot: Snapshot
) -> None:
    with pytest.raises(NotFoundError, match="no champion"):
        publish_risk_scores(DAY, "run-1")
    version = let_a_model_through()
    write_scores(snapshot, version)
    made = publish_risk_scores(DAY, "run-1")
    assert (made.row_count, made.model_version, made.current) == (3, version, True)
    assert publish_risk_scores(DAY, "run-2").release_id == made.release_id
    with connect(Role.READ) as connection:
        rows = fetch(connection, "select pseudonym, risk, decision, scope_reason from published.current_risk_scores")
    assert {row[2] for row in rows} == {"human"}
    assert sorted(row[3] or "" for row in rows) == ["", "", "dead"]
    assert not {str(subject) for subject in SUBJECTS} & {row[0] for row in rows}

    shown = CliRunner().invoke(show, ["risk", "--outcome", "heart_failure", "--top", "1", "--json"])
    found = json.loads(shown.stdout)
    assert [round(one["risk"], 3) for one in found["risks"]] == [0.2]
    assert found["about"]["decision_sentence"].startswith("let through by dr. a on ")
    assert (found["about"]["in_scope"], found["about"]["patients"]) == (2, 3)
    table = CliRunner().invoke(show, ["risk", "--outcome", "heart_failure"]).stdout
    assert "20.0%" in table
    assert "dr. a" in table
    with pytest.raises(NotFoundError, match="use one of: heart_failure"):
        CliRunner().invoke(show, ["risk", "--outcome", "gout"], catch_exceptions=False)
    assert "let through by dr. a" in CliRunner().invoke(model_app, ["show"]).stdout


def test_scores_of_other_weights_or_of_a_missing_shard_are_not_published(tracked: Settings, snapshot: Snapshot) -> None:
    version = let_a_model_through()
    write_scores(snapshot, version, weights="0" * 64)
    with pytest.raises(RefusedError, match="made by other weights"):
        publish_risk_scores(DAY, "run-1")
    write_scores(snapshot, version)
    score_path(DAY, version, 1).unlink()
    with pytest.raises(Exception, match="shard 1 of 2020-01-10 has no scores"):
        publish_risk_scores(DAY, "run-1")


def test_interconnections_are_published_without_small_counts(vigil: Settings, snapshot: Snapshot) -> None:
    write_matrices(snapshot)
    made = publish_interconnections(DAY, "run-1")
    assert (made.row_count, made.suppressed) == (len(METHOD_NAMES), 2 * len(METHOD_NAMES))
    again = publish_interconnections(DAY, "run-2")
    assert (again.release_id, again.suppressed) == (made.release_id, made.suppressed)

    for code in ("E11", "ICD10CM//E11", "I10"):
        shown = CliRunner().invoke(show, ["interconnections", "--code", code, "--json"])
        found = json.loads(shown.stdout)
        assert len(found) == len(METHOD_NAMES)
        assert found[0]["source"] == "Type 2 diabetes mellitus"
    table = CliRunner().invoke(show, ["interconnections", "--code", "E11", "--method", "jaccard"]).stdout
    assert "Essential" in table
    with pytest.raises(NotFoundError, match="I50"):
        CliRunner().invoke(show, ["interconnections", "--code", "I50"], catch_exceptions=False)


def test_matrices_of_another_snapshot_are_not_published(vigil: Settings, snapshot: Snapshot) -> None:
    with pytest.raises(NotFoundError, match="no interconnections"):
        publish_interconnections(DAY, "run-1")
    write_matrices(replace(snapshot, digest="d" * 64))
    with pytest.raises(RefusedError, match="of another snapshot"):
        publish_interconnections(DAY, "run-1")


def test_releases_are_listed_and_rolled_back_by_command(vigil: Settings, snapshot: Snapshot) -> None:
    write_matrices(snapshot)
    first = publish_interconnections(DAY, "run-1")
    write_matrices(snapshot, both=30)
    publish_interconnections(DAY, "run-2")
    done = CliRunner().invoke(publish_app, ["rollback", "disease_interconnections", "--as", "dr. a"])
    assert first.release_id[:8] in done.stdout
    listed = json.loads(CliRunner().invoke(show, ["releases", "--json"]).stdout)
    assert [one["current"] for one in listed] == [False, True]
    assert "current" in CliRunner().invoke(show, ["releases"]).stdout


def test_a_review_by_command_line_shows_the_evidence(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    version = str(register(make_run()).version)
    run = CliRunner()
    listed = json.loads(run.invoke(review, ["list", "--json"]).stdout)
    assert [one["state"] for one in listed] == ["waiting"]
    shown = run.invoke(review, ["show", version]).stdout
    for words in ("0.800 [0.780, 0.820]", "logistic regression", "calibration slope", "no decision yet", "sha256"):
        assert words in shown
    evidence = json.loads(run.invoke(review, ["show", version, "--json"]).stdout)
    assert evidence["gate"]["passed"] is True
    assert "rejected by dr. a" in run.invoke(review, ["reject", version, "--reason", "no", "--as", "dr. a"]).stdout
    assert run.invoke(review, ["approve", version]).exit_code != 0  # a reason is asked for
    assert "no champion yet" in run.invoke(model_app, ["show"]).stdout
