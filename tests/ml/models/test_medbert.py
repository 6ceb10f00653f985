"""The encoder: what it must not depend on, and what its files keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ml.common.errors import VigilError
from ml.models.files import finished, save_model
from ml.models.medbert import load_model
from ml.sequences.vocabulary import grow
from tests.ml.models.invented_models import SWITCHED, VOCABULARY, inputs, model, row


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_and_company_do_not_change_a_patients_output(norm: str) -> None:
    made, batch = model(norm=norm), inputs([5, 16, 32], 32)
    together = made(batch)
    for i, length in enumerate((5, 16, 32)):
        alone = made(row(batch, i, length))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_order_of_padding_contents_does_not_leak_into_the_heads() -> None:
    made, batch = model(), inputs([5, 9], 16)
    dirty = replace(batch, ages=batch.ages.clone(), days=batch.days.clone(), visits=batch.visits.clone())
    dirty.ages[0, 5:], dirty.days[0, 5:], dirty.visits[0, 5:] = 9999, 77, 3
    torch.testing.assert_close(made(batch), made(dirty), rtol=1e-4, atol=1e-5)


def test_the_decoder_at_masked_positions_equals_the_full_decoder() -> None:
    made, batch = model(), inputs([12, 16], 16)
    positions = torch.zeros(2, 16, dtype=torch.bool)
    positions[0, 3], positions[1, 7], positions[1, 15] = True, True, True
    full = made.decoder(made.encode(batch), made.embeddings.table())
    torch.testing.assert_close(made.masked_codes(batch, positions), full[positions], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linear_path", [True, False])
def test_age_at_the_index_day_reaches_the_outcomes(linear_path: bool) -> None:
    made, batch = model(linear_path=linear_path), inputs([6], 16)
    older = replace(batch, ages=batch.ages.clone())
    older.ages[0, 0] = batch.ages[0, 0] + 15_000
    assert (made(batch) - made(older)).abs().max() > 1e-3


def test_a_code_shares_its_categorys_embedding() -> None:
    made = model()
    child, parent = VOCABULARY.ids["ICD10CM//I10.1"], VOCABULARY.ids["ICD10CM//I10"]
    table, own = made.embeddings.table(), made.embeddings.code.weight
    torch.testing.assert_close(table[child], own[child] + own[parent])
    torch.testing.assert_close(table[parent], own[parent])


def test_a_saved_model_is_read_back_without_any_pickle(tmp_path: Path) -> None:
    made, batch = model(), inputs([5, 16], 16)
    made.config.calibration = [[0.5, 0.1], [1.5, -0.2]]
    save_model(tmp_path / "m", made, VOCABULARY, {"inputs": "abc"})
    assert {p.name for p in (tmp_path / "m").iterdir()} == {
        "config.json", "model.safetensors", "vocabulary.json", "training.json"
    }  # fmt: skip
    again = load_model(tmp_path / "m")
    assert torch.equal(again(batch), made(batch))
    assert again.config.outcomes == made.config.outcomes
    torch.testing.assert_close(again.risks(batch)[:, 0], torch.sigmoid(0.5 * made(batch)[:, 0] + 0.1))
    assert finished(tmp_path / "m", "abc")
    assert not finished(tmp_path / "m", "other inputs")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(VigilError, match=r"no model\.safetensors"):
        load_model(tmp_path)


def test_a_model_without_heads_gives_no_risks() -> None:
    with pytest.raises(VigilError, match="no outcome heads"):
        model(outcomes=0)(inputs([4], 16))


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "m", model(), VOCABULARY, {})
    config = tmp_path / "m" / "config.json"
    config.write_text(config.read_text().replace('"layers": 2', '"layers": 3'))
    with pytest.raises(VigilError, match="do not fit"):
        load_model(tmp_path / "m")


def test_a_vocabulary_that_is_not_the_weights_is_refused(tmp_path: Path) -> None:
    from ml.models.hugging_face import HubMedBert

    save_model(tmp_path / "m", model(), VOCABULARY, {})
    for other in (grow(VOCABULARY, {"ICD10CM//Z99": 9}, {}), replace(VOCABULARY, bins={"ICD10CM//I10": (1.0,)})):
        other.save(tmp_path / "m" / "vocabulary.json")
        for load in (load_model, HubMedBert.from_pretrained):
            with pytest.raises(VigilError, match="is not the one the model was trained on"):
                load(tmp_path / "m")


def test_a_loaded_model_shows_sequences_in_the_form_it_was_trained_in(tmp_path: Path) -> None:
    made = model(contents=["diagnosis"], sex=False, codes="truncated", separators=True)
    with pytest.raises(VigilError, match="needs the vocabulary"):
        made.form  # noqa: B018
    save_model(tmp_path / "m", made, VOCABULARY, {})
    form = load_model(tmp_path / "m").form
    assert form.form == made.config.form()
    assert form.table is not None
    assert form.table.tolist() == made.config.form().table(VOCABULARY).tolist()


@pytest.mark.parametrize("name", SWITCHED)
def test_hugging_faces_classes_read_and_write_the_same_files_bit_for_bit(tmp_path: Path, name: str) -> None:
    from ml.models.hugging_face import HubMedBert

    made, batch = model(**SWITCHED[name]), inputs([5, 16], 16)
    made.config.calibration = [[0.5, 0.1], [1.5, -0.2]]
    save_model(tmp_path / "m", made, VOCABULARY, {})
    hub = HubMedBert.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(hub.risks(batch), made.risks(batch))
    assert hub.form.form == made.config.form()
    hub.save_pretrained(tmp_path / "hub")
    again = load_model(tmp_path / "hub")
    assert again.config == made.config
    assert again.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(tensor, made.state_dict()[key]) for key, tensor in again.state_dict().items())
    assert torch.equal(again.risks(batch), made.risks(batch))
