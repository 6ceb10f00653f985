"""Training end to end on an invented hospital: it learns what was planted, and the same inputs give the same model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ml.cohorts import TrainingRun, make_labels, open_run, prediction_time, read_labels, split_of
from ml.common.errors import VigilError
from ml.common.files import read_json, sha256_file
from ml.extraction.log import snapshot_path
from ml.models import load_preset
from ml.models.files import save_model
from ml.models.medbert import load_model
from ml.models.presets import changed
from ml.sequences import load_vocabulary, prepare
from ml.sequences.vocabulary import EMPTY, grow
from ml.settings import get_settings
from ml.training import finetune, launch, pretrain, recurrent
from ml.training.data import pretraining_data
from ml.training.finetuning import data_of, leave_at_priors, prepare_heads
from ml.training.judge import auroc
from ml.training.recurrent import train_recurrent
from ml.training.setup import setup
from tests.ml.synthetic_log import commit, deployment, make_events

TASKS = '["heart_failure", "type_2_diabetes"]'


def weights(folder: Path) -> str:
    return sha256_file(folder / "model.safetensors")


def prepared(patients: int, events: int) -> TrainingRun:
    commit(make_events(patients, events))
    run = open_run()
    prepare(run)
    make_labels(run)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingRun]:
    """One run, trained through the worker and then by hand: both see the same files."""
    with deployment(tmp_path_factory.mktemp("trained"), tasks=TASKS, threads="2"):
        run = prepared(2500, 30)
        pretrain(run)
        finetune(run)
        yield run


@pytest.fixture
def small(tmp_path: Path) -> Iterator[TrainingRun]:
    with deployment(tmp_path, tasks=TASKS, index_days="2", threads="1"):
        yield prepared(300, 15)


def test_a_planted_signal_is_learned(trained: TrainingRun) -> None:
    frame = pl.read_parquet(trained.predictions("medbert")).filter(pl.col("split") == "held_out")
    for (task,), rows in frame.group_by("task"):
        labels = rows["boolean_value"].cast(pl.Float64).to_numpy()
        risks = rows["predicted_boolean_probability"].to_numpy()
        assert auroc(labels, risks) > 0.8, task


def test_risks_are_calibrated_on_the_tuning_split_at_the_training_days(trained: TrainingRun) -> None:
    at = [prediction_time(day) for day in trained.training_days]
    frame = pl.read_parquet(trained.predictions("medbert"))
    frame = frame.filter((pl.col("split") == "tuning") & pl.col("prediction_time").is_in(at))
    for (task,), rows in frame.group_by("task"):
        assert rows["predicted_boolean_probability"].mean() == pytest.approx(rows["boolean_value"].mean(), rel=0.02), (
            task
        )


def test_predictions_are_the_labels_rows_of_patients_the_model_did_not_learn_from(trained: TrainingRun) -> None:
    frame = pl.read_parquet(trained.predictions("medbert"))
    assert frame.columns == [
        "subject_id", "prediction_time", "boolean_value", "predicted_boolean_value", "predicted_boolean_probability",
        "task", "split",
    ]  # fmt: skip
    for task in ("heart_failure", "type_2_diabetes"):
        wanted = read_labels(trained, task).filter(pl.col("split") != "train").drop("index")
        found = frame.filter(pl.col("task") == task).select(wanted.columns)
        assert found.sort("subject_id", "prediction_time").equals(wanted.sort("subject_id", "prediction_time"))
    assert frame["predicted_boolean_probability"].is_between(0, 1).all()


def test_pretraining_sees_train_patients_only(trained: TrainingRun) -> None:
    source = pretraining_data(trained, load_vocabulary(trained.vocabulary))
    salt = get_settings().split_salt
    subjects = [int(source.stores[s].subjects[r]) for s, r in zip(source.store, source.row, strict=True)]
    assert len(subjects) > 1000
    assert {split_of(subject, salt) for subject in subjects} == {"train"}


def test_the_record_tells_losses_speed_and_digests_and_pretraining_learned_something(trained: TrainingRun) -> None:
    for folder in (trained.pretrained, trained.finetuned):
        record = read_json(folder / "training.json")
        assert {"losses", "tokens_per_second", "seconds", "seed", "preset", "snapshot"} <= record.keys()
        assert record["vocabulary"] == load_vocabulary(folder / "vocabulary.json").digest
        assert record["weights"] == weights(folder)
    losses = read_json(trained.pretrained / "training.json")["losses"]
    assert losses[-1][1] < losses[0][1] - 0.3
    assert len(read_json(trained.finetuned / "training.json")["tuning"]) == 4


def test_finished_stages_with_the_same_inputs_are_kept(trained: TrainingRun) -> None:
    paths = [trained.pretrained, trained.finetuned, trained.predictions("medbert")]
    stamps = [path.stat().st_mtime_ns for path in paths]
    pretrain(trained)
    finetune(trained)
    assert [path.stat().st_mtime_ns for path in paths] == stamps


def test_predictions_that_were_lost_are_written_again(trained: TrainingRun) -> None:
    path = trained.predictions("medbert")
    before = pl.read_parquet(path)
    path.unlink()
    finetune(trained)
    assert pl.read_parquet(path).equals(before)


def test_the_recurrent_baseline_answers_for_the_rows_of_the_model(trained: TrainingRun) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small = changed(load_preset("gru"), {"model": {"hidden": 32}, "finetuning": {"learning_rate": 5.0e-3}})
        patch.setattr(recurrent, "load_preset", lambda name: small)
        folder = train_recurrent(trained)
        before = weights(folder)
        assert train_recurrent(trained) == folder
    assert weights(folder) == before
    keys = ["task", "subject_id", "prediction_time", "boolean_value", "split"]
    ours, other = pl.read_parquet(trained.predictions("gru")), pl.read_parquet(trained.predictions("medbert"))
    assert ours.select(keys).equals(other.select(keys))
    found = ours.filter(pl.col("task") == "heart_failure")
    judged = auroc(found["boolean_value"].to_numpy(), found["predicted_boolean_probability"].to_numpy())
    assert judged > 0.55
    assert load_model(folder).config.layers == 0


def test_each_night_finds_the_linear_path_again_and_keeps_heads_that_have_none(trained: TrainingRun) -> None:
    model, other = load_model(trained.finetuned), load_model(trained.finetuned)
    training, _ = data_of(model, trained, setup(trained, "finetune"))
    training.labels[:, 1] = np.where(np.isnan(training.labels[:, 1]), np.nan, 0.0)  # an outcome that nobody had
    with torch.no_grad():
        other.heads.codes += 1.0
        other.heads.out.weight += 1.0
    for one in (model, other):
        prepare_heads(one, training)
    assert torch.equal(model.heads.codes, other.heads.codes)
    assert torch.equal(model.heads.out.weight, other.heads.out.weight)
    assert model.heads.codes[:, 0].abs().max() > 0
    assert model.heads.codes[:, 1].abs().max() == model.heads.out.weight[1].abs().max() == 0
    model.config.linear_path = False
    with torch.no_grad():
        model.heads.out.weight += 1.0
    before = model.heads.out.weight.clone()
    prepare_heads(model, training)
    assert torch.equal(model.heads.out.weight, before)


def test_where_nobody_had_any_outcome_a_champions_linear_path_is_not_kept(
    trained: TrainingRun, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(trained.finetuned)
    training, _ = data_of(model, trained, setup(trained, "finetune"))
    assert model.heads.codes.abs().max() > 0
    training.labels[:] = np.where(np.isnan(training.labels), np.nan, 0.0)
    assert leave_at_priors(model, training, "recurrent")["stage"] == "recurrent"
    assert model.heads.codes.abs().max() == model.heads.out.weight.abs().max() == 0
    assert "recurrent: no training label is positive" in caplog.text


def test_a_warm_start_keeps_ids_goes_on_from_the_encoder_and_costs_less(trained: TrainingRun, tmp_path: Path) -> None:
    cold = read_json(trained.pretrained / "training.json")["tokens"]
    with deployment(tmp_path, tasks=TASKS, index_days="2", threads="2"):
        run = prepared(300, 15)
        with pytest.raises(VigilError, match="does not extend"):
            pretrain(run, trained.finetuned)
        prepare(run, trained.finetuned)
        pretrain(run, trained.finetuned)
        record = read_json(run.pretrained / "training.json")
        assert record["tokens"] < 0.7 * cold
        assert record["initial"] == weights(trained.finetuned)
        assert load_model(run.pretrained).config.outcomes == ["heart_failure", "type_2_diabetes"]
        finetune(run)
        layers = [load_model(folder).encoder.layers[0] for folder in (trained.finetuned, run.finetuned)]
        old, new = (layer.attention.out.weight for layer in layers)
        assert (new - old).abs().max() < 0.5 * old.abs().max()
        assert torch.nn.functional.cosine_similarity(old.flatten(), new.flatten(), dim=0) > 0.9


def test_the_same_seed_gives_the_same_weights_on_one_thread_and_on_two(
    small: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(small)
    finetune(small)
    first = [weights(small.pretrained), weights(small.finetuned)]
    again = []
    for threads, seed in (("2", str(get_settings().seed)), ("2", "5")):
        monkeypatch.setenv("VIGIL_THREADS", threads)
        monkeypatch.setenv("VIGIL_SEED", seed)
        get_settings.cache_clear()
        for folder in (small.pretrained, small.finetuned):
            (folder / "training.json").unlink()  # not finished: made again
        pretrain(small)
        finetune(small)
        again.append([weights(small.pretrained), weights(small.finetuned)])
    assert again[0] == first
    assert again[1][0] != first[0]
    assert again[1][1] != first[1]


def test_a_loss_that_is_not_a_number_stops_with_cause_and_remedy_and_leaves_nothing(
    small: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml.training.pretraining as pretraining

    monkeypatch.setattr(pretraining, "mlm_loss", lambda model, **_: model.decoder.bias.sum()[None] * float("nan"))
    with pytest.raises(
        VigilError, match=r"loss became nan at step 0 \(\d+% of the budget, epoch 0, micro-batch 0, learning"
    ):
        pretrain(small)
    assert not small.pretrained.exists()


def test_stages_in_the_wrong_order_say_what_is_missing(tmp_path: Path) -> None:
    with deployment(tmp_path, tasks=TASKS, index_days="2"):
        commit(make_events(50, 10))
        with pytest.raises(VigilError, match="vocabulary"):
            pretrain(open_run())
        prepare(open_run())
        with pytest.raises(VigilError, match="has no labels"):
            finetune(open_run())


@pytest.mark.parametrize("eligible", [True, False])
def test_a_hospital_without_the_outcome_ends_with_a_model_that_keeps_its_prior(tmp_path: Path, eligible: bool) -> None:
    events = make_events(60, 10)
    with deployment(tmp_path, tasks='["stroke"]', index_days="2"):
        commit(events if eligible else events.filter(pl.col("code") != "MEDS_BIRTH"))
        run = open_run()
        prepare(run)
        make_labels(run)
        pretrain(run)
        finetune(run)
        frame = pl.read_parquet(run.predictions("medbert"))
        assert (frame.height > 0) is eligible
        assert not frame["boolean_value"].any()
        assert (frame["predicted_boolean_probability"] < 0.1).all()


def test_an_initial_model_of_another_shape_is_refused(small: TrainingRun, tmp_path: Path) -> None:
    from ml.models.config import MedBertConfig
    from ml.models.medbert import new_model

    vocabulary = grow(EMPTY, {"ICD10CM//I10": 9}, {})
    config = MedBertConfig(vocab_size=vocabulary.size, hidden=16, layers=1, heads=2, feedforward=16)
    other = new_model(config, torch.from_numpy(vocabulary.parents).long())
    save_model(tmp_path / "other", other, vocabulary, {})
    prepare(small, tmp_path / "other")
    with pytest.raises(VigilError, match="initial model's"):
        pretrain(small, tmp_path / "other")


def test_the_worker_passes_its_error_on(small: TrainingRun) -> None:
    snapshot_path(small.as_of).unlink()
    with pytest.raises(VigilError, match="no snapshot of 2024-06-30") as caught:
        launch("pretrain", small)
    assert "run the night" in caught.value.remedy


def test_the_worker_dies_with_the_process_that_started_it(small: TrainingRun) -> None:
    program = (
        "import subprocess, sys, os\n"
        f"w = subprocess.Popen([sys.executable, '-m', 'ml.training.worker', 'pretrain', '--as-of', '{small.as_of}',"
        " '--parent', str(os.getpid())])\n"
        "print(w.pid, flush=True)\nw.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    time.sleep(1.5)  # long enough to have asked the kernel, too short to have finished
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(worker)
    assert not small.pretrained.exists()


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")  # noqa: PTH110


def test_progress_is_written_for_a_person_who_watches(trained: TrainingRun) -> None:
    state = json.loads((get_settings().data_dir / "progress" / "finetune.json").read_text())
    assert state["done"] == state["total"]
    assert np.isfinite(state["total"])
