"""A search of hyper-parameters: resumable, never worse than the preset, and what the training then takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.cohorts import TrainingRun, make_labels, open_run
from ml.common.files import read_json
from ml.models import load_preset, preset_names
from ml.sequences import prepare
from ml.training import launch_search, pretrain
from ml.training.interruption import StoppedError
from ml.training.search import search
from ml.training.space import SPACE, base_of, best_path, changed, drawn, own_values, trials_path, tuned
from tests.ml.synthetic_log import commit, deployment, make_events


@pytest.fixture
def run(tmp_path: Path) -> Iterator[TrainingRun]:
    with deployment(tmp_path, tasks='["heart_failure"]', index_days="2", threads="2", search_share="0.5"):
        commit(make_events(300, 15))
        found = open_run()
        prepare(found)
        make_labels(found)
        yield found


def test_a_search_that_was_stopped_goes_on_and_the_training_takes_its_best(
    run: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml.training.search as module

    score, tried = module.score, []

    def stopped_in_the_second(*given: object) -> float:
        tried.append(given[1].preset)  # type: ignore[attr-defined]
        if len(tried) == 2:
            raise StoppedError("stopped", "run it again")
        return score(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "score", stopped_in_the_second)
    with pytest.raises(StoppedError):
        search(run, 3)
    assert len(read_json(trials_path(run.path))["trials"]) == 1
    search(run, 3)
    assert len(tried) == 4
    preset = load_preset("tiny")
    assert tried[0] == preset  # first its own values
    assert tried[1] == tried[2]  # the one that was cut off is tried again
    assert tried[3] not in tried[:3]
    trials, best = read_json(trials_path(run.path))["trials"], read_json(best_path(run.path))
    assert len(trials) == 3
    assert best["score"] == max(trial["score"] for trial in trials) >= trials[0]["score"]
    assert not list((run.path / "search").glob("*/checkpoints"))
    pretrain(run)
    record = read_json(run.pretrained / "training.json")
    assert record["preset"] == changed(preset, best["values"]).model_dump(mode="json")


def test_the_worker_searches(run: TrainingRun) -> None:
    found = launch_search(run, 1)
    assert found["trials"] == 1
    assert found["values"] == pytest.approx(own_values(load_preset("tiny")))


def test_values_found_for_another_preset_are_not_taken(tmp_path: Path) -> None:
    from ml.common.files import write_json

    tiny, night = load_preset("tiny"), load_preset("night")
    write_json(best_path(tmp_path), {"base": base_of(tiny), "values": {"model.dropout": 0.2}})
    assert tuned(tiny, tmp_path).model.dropout == 0.2
    assert tuned(night, tmp_path) == night
    assert tuned(tiny, tmp_path / "elsewhere") == tiny


@given(st.sampled_from(preset_names()), st.floats(0, 1))
def test_every_point_of_the_space_is_a_preset_and_its_own_values_are_one(name: str, share: float) -> None:
    preset = load_preset(name)
    found = drawn(preset, lambda dimension, low, high: low + share * (high - low))
    assert set(own_values(found)) == {dimension.key for dimension in SPACE}
    assert changed(preset, own_values(preset)) == preset
    for dimension in SPACE:
        low, high = dimension.bounds(preset)
        assert low <= dimension.own(preset) <= high
        assert low > 0 or not dimension.log
