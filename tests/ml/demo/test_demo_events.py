"""The log straight from the generator is the log that an extraction of the loaded hospital gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ml.demo.ceiling import read_truth, truth_of
from ml.demo.events import commit_hospital
from ml.demo.generate import Order
from ml.demo.load import advance, load_demo
from ml.demo.process import END
from ml.extraction import extract
from ml.settings import Settings, get_settings, other_settings
from tests.ml.small_hospital import night

ORDER = Order(300, "pancreas", 11)


def test_the_generated_log_has_the_digest_and_the_truth_of_the_loaded_hospital(vigil: Settings, tmp_path: Path) -> None:
    load_demo(ORDER.patients, ORDER.preset, ORDER.seed)
    advance(END)
    extract(END)
    loaded, truth = night(END), read_truth()
    with other_settings(data=tmp_path / "own", event_log=tmp_path / "own" / "event_log"):
        made = commit_hospital(ORDER, END, tmp_path / "truth")
        again = commit_hospital(ORDER, END, tmp_path / "truth")
    assert made.digest == loaded.digest
    assert made.rows == loaded.rows
    assert again == made
    found = truth_of(ORDER.preset, tmp_path / "truth")
    for name in ("person_id", "born", "entry", "leave", "sex", "began", "onset", "since", "kind"):
        assert np.array_equal(getattr(found, name), getattr(truth, name)), name
    assert np.allclose(found.traits, truth.traits)


def test_settings_are_as_before_when_the_block_ends(vigil: Settings, tmp_path: Path) -> None:
    before = get_settings()
    with other_settings(data=tmp_path, tasks=("death", "stroke")) as inside:
        assert inside.tasks == ("death", "stroke")
        assert get_settings().data_dir == tmp_path
    assert get_settings() == before
