"""Checkpoints that are whole, damaged, half-written, or somebody else's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ml.training.checkpoints import MANIFEST, STATE, TENSORS, Checkpoints


def filled(folder: Path, inputs: str = "a" * 64) -> Checkpoints:
    checkpoints = Checkpoints(folder, inputs)
    for step in (1, 2, 3):
        checkpoints.save(step, {"model.x": torch.full((100,), float(step))}, {"seen": step})
    return checkpoints


def test_the_last_two_are_kept_and_the_newest_is_taken(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path)
    assert sorted(path.name for path in checkpoints.own.iterdir()) == ["000000002", "000000003"]
    found = checkpoints.newest()
    assert found is not None
    assert (found.step, found.state) == (3, {"seen": 3})
    assert torch.equal(found.under("model")["x"], torch.full((100,), 3.0))


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / TENSORS).read_bytes())
    content[-7] ^= 1
    (path / TENSORS).write_bytes(bytes(content))


def cut_short(path: Path) -> None:
    (path / TENSORS).write_bytes((path / TENSORS).read_bytes()[:-50])


def change_the_state(path: Path) -> None:
    (path / STATE).write_text((path / STATE).read_text().replace("3", "4"))


def lose_the_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def lose_the_tensors(path: Path) -> None:
    (path / TENSORS).unlink()


def break_the_manifest(path: Path) -> None:
    (path / MANIFEST).write_bytes(b"\x00" * 40)


DAMAGES = [flip_a_bit, cut_short, change_the_state, lose_the_manifest, lose_the_tensors, break_the_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_one_is_recognised_and_the_one_before_is_used(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = filled(tmp_path)
    damage(checkpoints.own / "000000003")
    with caplog.at_level(logging.WARNING):
        found = checkpoints.newest()
    assert found is not None
    assert found.step == 2
    assert "000000003 is damaged" in caplog.text


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path)
    for path in checkpoints.own.iterdir():
        flip_a_bit(path)
    assert checkpoints.newest() is None


def test_what_a_killed_process_left_half_written_is_never_taken_and_is_cleared(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path)
    half = checkpoints.own / ".000000004.abc"
    half.mkdir()
    (half / TENSORS).write_bytes((checkpoints.own / "000000003" / TENSORS).read_bytes()[:90])
    found = checkpoints.newest()
    assert found is not None
    assert found.step == 3
    checkpoints.clear_unfinished()
    assert not half.exists()


def test_a_checkpoint_of_other_inputs_is_not_taken(tmp_path: Path) -> None:
    filled(tmp_path, "a" * 64)
    assert Checkpoints(tmp_path, "b" * 64).newest() is None
    assert Checkpoints(tmp_path, "a" * 12 + "b" * 52).newest() is None  # same folder, another digest


def test_a_stage_that_is_done_leaves_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = filled(tmp_path / "checkpoints")
    checkpoints.remove()
    assert not (tmp_path / "checkpoints").exists()
    checkpoints.remove()
