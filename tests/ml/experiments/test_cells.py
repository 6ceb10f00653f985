"""Finished cells are kept, whatever ended the run; what is cut off or damaged is done again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ml.experiments.cells import Cells, Outcome, Worker
from tests.ml.synthetic_log import deployment

TODO = [("model", f"model-f{fold}") for fold in range(4)]


class Work:
    """Counts what it is asked for, and dies before a cell."""

    def __init__(self, dies_at: str | None = None) -> None:
        self.dies_at, self.asked = dies_at, list[str]()

    def __call__(self, name: str) -> Outcome:
        if name == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(name)
        return Outcome({"auroc": int(name[-1]) / 10}, np.full((3, 1), int(name[-1]), np.float32))


def test_a_run_that_died_goes_on_with_the_cell_it_died_in(tmp_path: Path) -> None:
    with deployment(tmp_path):
        worker = Worker(Cells(tmp_path / "cells"), "test", print)
        with pytest.raises(KeyboardInterrupt):
            worker.run(TODO, Work("model-f2"))
        assert set(worker.done(TODO)) == {"model-f0", "model-f1"}
        rest = Work()
        found = Worker(Cells(tmp_path / "cells"), "test", print).run(TODO, rest)
    assert rest.asked == ["model-f2", "model-f3"]
    assert [found[name].values["auroc"] for _, name in TODO] == [0.0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("damage", ["cut", "empty", "other scores", "no scores", "no list"])
def test_a_damaged_cell_is_none(tmp_path: Path, damage: str) -> None:
    cells = Cells(tmp_path)
    cells.write("one", Work()("model-f1"))
    scores, facts = tmp_path / "one.npy", tmp_path / "one.json"
    assert cells.read("one") is not None
    if damage == "cut":
        facts.write_bytes(facts.read_bytes()[:-10])
    elif damage == "empty":
        facts.write_bytes(b"")
    elif damage == "other scores":
        scores.write_bytes(scores.read_bytes()[:-4] + b"abcd")
    elif damage == "no scores":
        scores.unlink()
    else:
        facts.write_text("[]")
    assert cells.read("one") is None


def test_the_time_left_is_told_once_each_kind_was_timed(tmp_path: Path) -> None:
    lines: list[str] = []
    with deployment(tmp_path):
        Worker(Cells(tmp_path / "cells"), "test", lines.append).run(TODO, Work())
    assert lines[0] == "4 cells, 0 of them done"
    assert lines[-1] == "4 of 4: model-f3"
