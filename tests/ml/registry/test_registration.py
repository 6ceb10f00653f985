"""Registration: one MLflow run and one version per model and evaluation, complete, and nothing of a patient in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml.cli import app
from ml.common.errors import ConfigError, NotFoundError, RefusedError
from ml.common.files import read_json, sha256_file
from ml.registry import gate, judged, register, review
from ml.registry.store import model_digest
from ml.registry.tracking import EXPERIMENT, TrackingError, all_versions, connected
from ml.settings import Settings, get_settings
from tests.ml.invented_runs import estimate, make_run, task_result


def runs_named(name: str) -> int:
    with connected() as client:
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        return len(client.search_runs([experiment], f"tags.`vigil.run` = '{name}'"))


def test_a_passing_run_becomes_a_challenger_that_carries_its_digests(tracked: Settings) -> None:
    run = make_run()
    model = register(run)
    assert model.version == 1
    assert model.aliases == ("challenger",)
    assert model.digests.model == model_digest(run.finetuned)
    assert model.digests.snapshot == run.snapshot.digest
    assert model.vocabulary_digest == "7" * 64
    with connected() as client:
        logged = client.get_run(model.run_id)
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["heart_failure.auroc"] == 0.8
    assert logged.data.metrics["heart_failure.logistic_regression.auroc"] == 0.77
    assert logged.data.metrics["heart_failure.medbert-minus-age_sex.auroc_low"] == pytest.approx(0.1)
    assert logged.data.params["config.hidden"] == "8"
    dataset = logged.inputs.dataset_inputs[0].dataset
    assert dataset.digest == run.snapshot.digest[:36]
    assert run.snapshot.digest in dataset.source


def test_registering_twice_gives_one_run_and_one_version(tracked: Settings) -> None:
    run = make_run(seed=101)
    assert register(run) == register(run)
    with connected() as client:
        assert len(all_versions(client)) == 1
    assert runs_named(run.name) == 1


def test_a_registration_killed_half_way_is_completed(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(seed=102)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ml.registry.registration._log_model", killed)
        with pytest.raises(KeyboardInterrupt):
            register(run)
    model = register(run)
    assert (model.version, model.aliases) == (1, ("challenger",))
    assert runs_named(run.name) == 1


def test_other_weights_or_another_evaluation_make_a_new_version(tracked: Settings) -> None:
    first = register(make_run(seed=1))
    reevaluated = register(make_run(task_result(auroc=0.81), seed=1))
    retrained = register(make_run(seed=2))
    assert [m.version for m in (first, reevaluated, retrained)] == [1, 2, 3]
    assert first.digests.model == reevaluated.digests.model
    assert retrained.aliases == ("challenger",)
    assert register(make_run(seed=1)).aliases == ()  # found again, and not put before the newer one


def test_a_refused_run_is_logged_without_an_alias_and_counts_as_judged(tracked: Settings) -> None:
    run = make_run(task_result(events=3))
    assert not judged(run)
    model = register(run)
    assert (model.gate, model.aliases) == ("refused", ())
    assert judged(run)
    assert read_json(run.path / "gate.json")["passed"] is False


def test_the_gate_asks_for_a_comparison_once_there_is_a_champion(tracked: Settings) -> None:
    version = register(make_run(seed=1)).version
    with connected() as client:
        client.set_registered_model_alias(tracked.model_name, "champion", str(version))
    assert gate(make_run(seed=1)).passed  # the champion is not compared with itself
    assert not gate(make_run(seed=2)).passed
    assert gate(make_run(task_result(champion_difference=estimate(0.1)), seed=2)).passed


def test_an_evaluation_of_another_run_is_refused(tracked: Settings) -> None:
    run = make_run(seed=1)
    run.evaluation.write_bytes(make_run(seed=2).evaluation.read_bytes())
    with pytest.raises(ConfigError, match="of another run"):
        register(run)


def test_a_run_without_weights_is_refused(tracked: Settings) -> None:
    run = make_run()
    (run.finetuned / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"holds no model\.safetensors"):
        register(run)


def test_no_pickle_and_only_an_invented_example_are_stored(tracked: Settings, mlflow_artifacts: Path) -> None:
    register(make_run(seed=103))
    stored = [file for file in mlflow_artifacts.rglob("*") if file.is_file()]
    names = {file.name for file in stored}
    assert {"model.safetensors", "MLmodel", "pyfunc_model.py", "evaluation.json", "gate.json"} <= names
    assert not [file for file in stored if file.suffix in {".pkl", ".pickle", ".pt", ".bin"}]
    assert not [file for file in stored if file.read_bytes()[:1] == b"\x80"]  # how a pickle begins
    assert {"input_example.json"} <= names


def test_an_absent_server_is_one_line_and_soon(tracked: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    get_settings.cache_clear()
    with pytest.raises(TrackingError) as caught, connected():
        pass
    assert "cannot reach MLflow at http://127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_is_stored_with_the_version_and_comes_back_as_it_was(tracked: Settings) -> None:
    run = make_run(seed=204)
    run.report.write_text("<p>all that was found</p>")
    model = register(run)
    assert model.report == sha256_file(run.report)
    path = review.report(model.version)
    assert path.read_text() == "<p>all that was found</p>"
    assert str(path) in CliRunner().invoke(app, ["review", "report", "1"]).output
    shown = CliRunner().invoke(app, ["review", "show", "1"]).output
    assert str(path) in shown.replace("\n", "")
    with connected() as client:
        described = client.get_model_version(tracked.model_name, "1").description
    assert "vigil review report" in described
    assert "Gate: passed on 1 outcome(s): heart_failure" in described


def test_a_report_made_after_its_run_was_logged_is_not_promised(tracked: Settings) -> None:
    run = make_run(seed=207)
    register(run)
    run.report.write_text("<p>too late</p>")
    assert register(run).report is None


def test_a_report_that_was_changed_in_mlflow_is_refused(tracked: Settings, mlflow_artifacts: Path) -> None:
    run = make_run(seed=205)
    run.report.write_text("<p>honest</p>")
    version = register(run).version
    (stored,) = [f for f in mlflow_artifacts.rglob("report.html") if f.read_text() == "<p>honest</p>"]
    stored.write_text("<p>embellished</p>")
    with pytest.raises(RefusedError, match="the report in MLflow is not what was registered"):
        review.report(version)
    stored.unlink()
    with pytest.raises(RefusedError, match="not what was registered"):
        review.report(version)


def test_a_version_without_a_report_says_so(tracked: Settings) -> None:
    version = register(make_run(seed=206)).version
    with pytest.raises(NotFoundError, match="without a report"):
        review.report(version)
    assert "none was registered" in CliRunner().invoke(app, ["review", "show", "1"]).output
