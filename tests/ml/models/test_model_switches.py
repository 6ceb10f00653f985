"""Each switch of the model family does what it says, and no more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ml.common.errors import ConfigError
from ml.models.config import config_of
from ml.models.embeddings import CORE_BEHRT_DAY, Embeddings, Time2Vec, core_behrt_hours
from ml.models.encoder import SwiGLU, feedforward
from ml.models.medbert import MedBert, new_model
from ml.models.presets import load_preset
from tests.ml.models.invented_models import SWITCHED, VOCABULARY, config, inputs, model

#: Outputs of the models of these presets before there were switches: logits of two outcomes for three sequences.
BEFORE = {
    "night": [[0.04083, 0.307841], [0.208467, 0.417679], [0.234074, 0.477995]],
    "tiny": [[0.599404, 0.439647], [0.145752, 0.185688], [0.334303, 0.156223]],
}
WEIGHTS_BEFORE = {"night": (67, 7268.9546), "tiny": (43, 674.4451)}  # tensors, and the sum of their absolute values


def embedded(**switches: object) -> Embeddings:
    torch.manual_seed(3)
    return Embeddings(config(**switches)).eval()


def seeded(name: str) -> MedBert:
    torch.manual_seed(7)
    wanted = config_of(load_preset(name).model, 100, "", load_preset(name).longest)
    wanted.outcomes, wanted.horizons = ["a", "b"], [365, 365]
    parents = torch.zeros(100, dtype=torch.int64)
    parents[50:] = torch.arange(50) % 40 + 5
    return new_model(wanted, parents).eval()


@pytest.mark.parametrize("name", ["night", "tiny"])
def test_the_first_presets_have_the_weights_and_outputs_they_had_before_there_were_switches(name: str) -> None:
    import numpy as np

    made, rng, shape = seeded(name), np.random.default_rng(3), (3, 16)
    real = np.arange(16)[None] < np.array([3, 16, 11])[:, None]
    drawn = {"tokens": (5, 100), "ages": (-1, 30_000), "days": (0, 3000), "visits": (0, 90)}
    arrays = {key: np.where(real, rng.integers(*bounds, shape), 0) for key, bounds in drawn.items()}
    batch = replace(inputs([3, 16, 11], 16), **{key: torch.from_numpy(a).long() for key, a in arrays.items()})
    torch.testing.assert_close(made(batch), torch.tensor(BEFORE[name]), rtol=0, atol=2e-6)
    count, total = WEIGHTS_BEFORE[name]
    assert len(made.state_dict()) == count
    assert sum(p.detach().double().abs().sum().item() for p in made.parameters()) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("name", SWITCHED)
def test_every_weight_of_every_switch_gets_a_gradient(name: str) -> None:
    made, batch = model(**SWITCHED[name]), inputs([5, 16, 9], 16)
    hidden = made.encode(batch)
    loss = made(batch).square().sum() + made.decode(hidden[:, 0]).square().sum()
    if made.stay is not None:
        loss = loss + made.long_stay(hidden, batch).square().sum()
    loss.backward()
    silent = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_a_code_is_its_own_vector_alone_without_category_codes() -> None:
    made = model(category_codes=False)
    assert torch.equal(made.embeddings.table(), made.embeddings.code.weight)


@pytest.mark.parametrize(
    ("switches", "changed"),
    [
        ({"visit": "none"}, "visits"), ({"age": "none"}, "ages"), ({"time": "none"}, "days"),
        ({"serialization": False}, "serial"), ({"time": "before"}, "now"),
    ],
)  # fmt: skip
def test_what_is_switched_off_does_not_reach_the_embedding(switches: dict[str, object], changed: str) -> None:
    made, batch = embedded(**switches), inputs([9, 16], 16)
    other = replace(batch, **{changed: getattr(batch, changed) + 1000})
    assert torch.equal(made(batch), made(other))


@pytest.mark.parametrize(
    ("switches", "changed"),
    [
        ({}, "visits"), ({"visit": "alternating"}, "visits"), ({"position": "visit", "visit": "none"}, "visits"),
        ({}, "ages"), ({"age": "table"}, "ages"), ({"scales": "core_behrt"}, "ages"), ({}, "days"),
        ({"time": "absolute"}, "days"), ({"time": "absolute"}, "now"), ({"serialization": True}, "serial"),
    ],
)  # fmt: skip
def test_what_is_switched_on_reaches_the_embedding(switches: dict[str, object], changed: str) -> None:
    made, batch = embedded(**switches), inputs([9, 16], 16)
    batch = replace(batch, visits=batch.visits % 5 + 1)
    other = replace(batch, **{changed: getattr(batch, changed) + 401})
    assert (made(batch) - made(other)).abs().max() > 1e-4


def test_alternating_segments_are_those_of_odd_and_even_visits_and_what_is_static_is_in_the_first() -> None:
    made, batch = embedded(visit="alternating"), inputs([6], 6)
    same = replace(batch, **{n: torch.full((1, 6), 7) for n in ("tokens", "ages", "days")})
    out = made(replace(same, visits=torch.tensor([[0, 1, 2, 3, 4, 9]])))[0]
    for i in (1, 3, 5):
        assert torch.equal(out[i], out[0])
    assert torch.equal(out[2], out[4])
    assert not torch.equal(out[1], out[2])


def test_the_order_in_the_visit_is_told_apart_up_to_its_cap() -> None:
    made, batch = embedded(serialization=True, serials=4), inputs([6], 6)
    same = replace(batch, **{n: torch.full((1, 6), 7) for n in ("tokens", "ages", "days", "visits")})
    out = made(replace(same, serial=torch.tensor([[0, 1, 2, 3, 4, 90]])))[0]
    assert torch.equal(out[3], out[4])
    assert torch.equal(out[3], out[5])
    assert not torch.equal(out[2], out[3])


def test_the_age_table_has_whole_years_up_to_120_and_a_row_for_the_unknown() -> None:
    made, batch = embedded(age="table"), inputs([7], 7)
    same = replace(batch, **{n: torch.full((1, 7), 7) for n in ("tokens", "days", "visits")})
    days = [int(year * 365.25) + 1 for year in (0, 50, 51, 120, 140)]
    out = made(replace(same, ages=torch.tensor([[-1, days[0], days[1], days[1] + 300, days[2], days[3], days[4]]])))[0]
    assert torch.equal(out[2], out[3])
    assert torch.equal(out[5], out[6])
    assert not torch.equal(out[2], out[4])
    assert all(not torch.equal(out[0], out[i]) for i in range(1, 7))


def test_absolute_time_counts_hours_since_2020_01_26() -> None:
    batch = replace(inputs([2], 2), days=torch.tensor([[0, 3]]), now=torch.tensor([CORE_BEHRT_DAY + 1]))
    assert core_behrt_hours(batch).tolist() == [[24.0, -48.0]]


def test_core_behrts_linear_feature_is_clamped_and_the_periodic_ones_are_not() -> None:
    free, clamped = Time2Vec(4), Time2Vec(4, limit=100.0)
    clamped.load_state_dict(free.state_dict())
    far = torch.tensor([1e6, -1e6])
    assert clamped(far)[:, 0].abs().tolist() == [100.0, 100.0]
    assert torch.equal(clamped(far)[:, 1:], free(far)[:, 1:])


def test_rope_depends_on_distance_alone_and_tells_orders_apart() -> None:
    from ml.models.attention import Rotation

    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 8)
    at = Rotation.of(torch.arange(40), 8)
    turned_query, turned_key = at.turn(query.expand(40, 1, 8)), at.turn(key.expand(40, 1, 8))
    score = (turned_query[:, 0] @ turned_key[:, 0].T).double()
    torch.testing.assert_close(score[5, 2], score[33, 30], rtol=1e-4, atol=1e-5)
    assert abs(score[5, 2] - score[5, 3]) > 1e-4
    made, batch = model(position="rope", linear_path=False), inputs([8], 8)
    swapped = torch.tensor([0, 2, 1, 3, 4, 5, 6, 7])
    moved = replace(batch, **{n: getattr(batch, n)[:, swapped] for n in ("tokens", "ages", "days", "visits")})
    assert (made(batch) - made(moved)).abs().max() > 1e-5
    still = model(linear_path=False)
    torch.testing.assert_close(still(batch), still(moved), rtol=1e-4, atol=1e-5)


def test_core_behrts_swiglu_stands_between_the_two_usual_maps() -> None:
    standard, published = feedforward(config(feedforward_kind="swiglu")), feedforward(
        config(feedforward_kind="swiglu_core_behrt")
    )  # fmt: skip
    assert {tuple(p.shape) for p in standard.parameters()} == {(48, 32), (32, 48)}
    assert sorted(tuple(p.shape) for p in published.parameters()) == sorted(
        [(48, 32), (48,), (48, 48), (48, 48), (48, 48), (32, 48), (32,)]
    )
    unit = SwiGLU(1, 1)
    for layer, weight in ((unit.gate, 2.0), (unit.value, 3.0), (unit.out, 0.5)):
        torch.nn.init.constant_(layer.weight, weight)
    silu = 2.0 / (1.0 + math.exp(-2.0))
    assert unit(torch.ones(1)).item() == pytest.approx(0.5 * silu * 3.0)


def test_an_untied_decoder_has_weights_of_its_own() -> None:
    made = model(tied=False)
    assert made.decoder.own is not None
    assert made.decoder.own.weight.shape == (VOCABULARY.size, 32)
    before = made.decode(torch.ones(1, 32))
    made.embeddings.code.weight.data.zero_()
    assert torch.equal(made.decode(torch.ones(1, 32)), before)


@pytest.mark.parametrize(
    ("switches", "cause"),
    [
        ({"hidden": 33}, "not a multiple"),
        ({"hidden": 30, "heads": 2, "position": "rope"}, "has 15 features"),
        ({"head": "mask", "age_powers": False, "linear_path": False}, "next_visit"),
        ({"head": "sum", "age_powers": False, "linear_path": False}, "gives two"),
        ({"head": "sum", "pooling": "mean"}, "no place for"),
        ({"age_powers": False}, "fitted together with the age"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(switches: dict[str, object], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        MedBert(config(**switches))
