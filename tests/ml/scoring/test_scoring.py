"""Scores of a shard: one row per subject and outcome, and no risk without the right to one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from ml.cohorts import eligible, load_task, open_run
from ml.common.errors import VigilError
from ml.extraction import read_view
from ml.extraction.snapshot import Snapshot
from ml.models.config import MedBertConfig
from ml.models.files import save_model
from ml.models.medbert import new_model
from ml.scoring import SCORE_SCHEMA, combine, score_path, score_shard
from ml.sequences import load_vocabulary, prepare
from ml.sequences.vocabulary import EMPTY, grow
from tests.ml.synthetic_log import END, commit, deployment, make_events

OUTCOMES = ["heart_failure", "death"]


@pytest.fixture
def snapshot(tmp_path: Path) -> Iterator[Snapshot]:
    with deployment(tmp_path, index_days="2", threads="2"):
        yield commit(make_events(200, 15), shards=2)


@pytest.fixture
def model_dir(snapshot: Snapshot, tmp_path: Path) -> Path:
    """An untrained model: scoring does not ask whether it is a good one."""
    run = open_run()
    prepare(run)
    vocabulary = load_vocabulary(run.vocabulary)
    torch.manual_seed(0)
    config = MedBertConfig(
        vocab_size=vocabulary.size, hidden=16, layers=1, heads=2, feedforward=16, outcomes=OUTCOMES,
        horizons=[365, 365], calibration=[[1.0, -2.0], [0.5, 0.0]], vocabulary_digest=vocabulary.digest,
    )  # fmt: skip
    save_model(tmp_path / "m", new_model(config, torch.from_numpy(vocabulary.parents).long()), vocabulary, {})
    return tmp_path / "m"


def test_every_subject_and_outcome_has_a_row_and_a_risk_exactly_where_in_scope(
    snapshot: Snapshot, model_dir: Path
) -> None:
    for shard in range(2):
        score_shard(snapshot, shard, model_dir, 3)
    frame = combine(snapshot, 3)
    assert frame.schema == pl.Schema(SCORE_SCHEMA)
    assert frame.height == 200 * 2
    assert frame.select("subject_id", "outcome").is_unique().all()
    assert (frame["risk"].is_not_null() == frame["in_scope"]).all()
    assert (frame["scope_reason"].is_null() == frame["in_scope"]).all()
    assert frame["risk"].drop_nulls().is_between(0, 1).all()
    assert 0 < frame["in_scope"].sum() < frame.height
    for name in OUTCOMES:
        views = pl.concat([eligible(read_view(snapshot, END, shard), END, load_task(name)) for shard in range(2)])
        mine = frame.filter(pl.col("outcome") == name).select("subject_id", "in_scope", "scope_reason")
        assert mine.rows() == views.sort("subject_id").rows()


def test_a_finished_shard_is_kept_and_one_of_another_model_is_made_again(snapshot: Snapshot, model_dir: Path) -> None:
    path = score_shard(snapshot, 0, model_dir, 3)
    stamp, before = path.stat().st_mtime_ns, pl.read_parquet(path)
    assert score_shard(snapshot, 0, model_dir, 3).stat().st_mtime_ns == stamp
    path.with_suffix(".json").unlink()  # killed between the two writes
    score_shard(snapshot, 0, model_dir, 3)
    assert pl.read_parquet(path).equals(before)
    (model_dir / "config.json").write_text((model_dir / "config.json").read_text().replace("-2.0", "-1.0"))
    score_shard(snapshot, 0, model_dir, 3)
    assert not pl.read_parquet(path).equals(before)


def test_another_vocabulary_than_the_models_is_refused(snapshot: Snapshot, model_dir: Path) -> None:
    grow(EMPTY, {"ICD10CM//I10": 9}, {}).save(model_dir / "vocabulary.json")
    with pytest.raises(VigilError, match="not the one the model was trained on"):
        score_shard(snapshot, 0, model_dir, 3)
    assert not score_path(END, 3, 0).exists()


def test_scores_are_combined_only_when_every_shard_has_them(snapshot: Snapshot, model_dir: Path) -> None:
    score_shard(snapshot, 0, model_dir, 3)
    with pytest.raises(VigilError, match="shard 1"):
        combine(snapshot, 3)
