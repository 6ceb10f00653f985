"""What a warm pretraining sees of new and old patients."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.cohorts import open_run
from ml.common.files import read_json, write_json
from ml.models import load_preset
from ml.models.medbert import load_model
from ml.sequences import load_vocabulary, prepare
from ml.training import pretrain
from ml.training.data import pretraining_data
from ml.training.replay import has_news, last_day_seen, mixed
from tests.ml.synthetic_log import commit, deployment, make_events


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.floats(0, 0.95), st.integers(0, 9))
def test_an_epoch_has_all_that_is_new_and_its_share_of_the_rest(news: list[bool], replay: float, seed: int) -> None:
    given_news = np.array(news)
    draw, likely = mixed(given_news, replay)
    if draw is None:
        assert (likely == 1).all()
        assert not any(news) or given_news.sum() * replay / (1 - replay) > (~given_news).sum() - 1
        return
    epoch = draw(np.random.default_rng(seed))
    assert len(set(epoch.tolist())) == epoch.size
    assert set(np.flatnonzero(given_news)) <= set(epoch.tolist())
    assert abs((~given_news[epoch]).sum() - replay * epoch.size) <= 1
    assert likely.sum() == pytest.approx(epoch.size)


def test_a_warm_pretraining_draws_from_patients_with_news_and_replays_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml.training.setup as module

    with deployment(tmp_path, tasks='["stroke"]', index_days="2", threads="1"):
        commit(make_events(300, 15))
        run = open_run()
        prepare(run)
        pretrain(run)
        champion = tmp_path / "champion"
        run.pretrained.rename(champion)
        assert last_day_seen(champion) == run.test_day
        record = read_json(champion / "training.json")
        write_json(champion / "training.json", {**record, "index_days": [str(date(2022, 12, 1))]})  # 212 days before t1

        data = pretraining_data(run, load_vocabulary(run.vocabulary))
        news = has_news(data, (run.test_day - date(2022, 12, 1)).days)
        for k in range(data.row.size):  # the definition, one by one
            store, row = data.stores[data.store[k]], data.row[k]
            own = slice(store.offsets[row], store.offsets[row + 1])
            assert news[k] == bool(((store.days[own] < 212) & (store.visits[own] > 0)).any())
        assert 0 < news.sum() < news.size

        preset = load_preset("tiny").model_copy(update={"replay": 0.25})
        monkeypatch.setattr(module, "load_preset", lambda name: preset)
        pretrain(run, champion)
        warm = read_json(run.pretrained / "training.json")
        assert warm["preset"]["replay"] == 0.25
        lengths = data.lengths(load_model(run.pretrained).form)
        epoch = lengths[news].sum() + lengths[~news].mean() * round(news.sum() / 3)
        assert warm["tokens"] / warm["epochs"] == pytest.approx(epoch, rel=0.02)
