"""The process's files: codes exist, effects are stated and sourced."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import simple_icd_10_cm as icd

from ml.demo.concepts import load_codes
from ml.demo.generate import ENRICHED_BY, Order, process_of
from ml.demo.process import DEATH, _codes, load_process, rows


def test_every_diagnosis_code_is_a_billable_icd_10_cm_code_of_its_category() -> None:
    for disease in load_process().diseases:
        for code, _ in (pair for site in disease.codes for pair in site):
            assert icd.is_valid_item(code), code
            assert icd.is_leaf(code), code
            assert code.startswith(disease.category)


def test_shares_of_codes_sum_to_one_and_bad_text_is_refused() -> None:
    assert sum(share for _, share in _codes("A1:1|A2:3")) == pytest.approx(1)
    with pytest.raises(ValueError, match="not enough values"):
        _codes("A1")


def test_there_are_at_least_60_disease_effects_and_each_names_known_diseases_once() -> None:
    process = load_process()
    known = process.columns
    pairs = [(e.kind, e.source, e.target) for e in process.effects]
    assert len(set(pairs)) == len(pairs)
    assert all(e.source in known and e.target in known and e.source != DEATH for e in process.effects)
    assert sum(e.kind == "effect" and e.target != DEATH for e in process.effects) >= 60
    assert all(e.hazard_ratio > 0 and e.latency_days >= 0 for e in process.effects)


def test_every_value_names_an_address_that_was_opened_or_says_that_it_was_chosen() -> None:
    sources = {row["source_of_value"] for row in rows("effects.csv")}
    assert "chosen" in sources
    assert all(source == "chosen" or "http" in source for source in sources)
    assert all(row["source_of_value"] for row in rows("diseases.csv"))


def test_the_prodrome_of_pancreatic_cancer_is_planted() -> None:
    targets = {e.target for e in load_process().effects if e.kind == "prodrome" and e.source == "C25"}
    assert {"E11", "K85", "R63", "R17"} <= targets


def test_women_alone_and_men_alone_have_their_diseases() -> None:
    process = load_process()
    assert process.base[:, 0, process.index("O24")].max() == 0 < process.base[:, 1, process.index("O24")].max()
    assert process.base[:, 1, process.index("C61")].max() == 0 < process.base[:, 0, process.index("C61")].max()


def test_site_b_codes_less_specifically() -> None:
    sizes = np.array([[len(site) for site in d.codes] for d in load_process().diseases])
    assert sizes[:, 1].mean() < sizes[:, 0].mean()


def test_concepts_are_unique_and_every_drug_and_lab_has_one() -> None:
    codes, process = load_codes(), load_process()
    assert len({*zip(codes.vocabularies, codes.codes, strict=True)}) == len(codes.codes)
    assert codes.codes[codes.drugs].tolist() == [drug.atc for drug in process.drugs]
    assert codes.codes[codes.labs].tolist() == [lab.loinc for lab in process.labs]


def test_the_enriched_preset_changes_the_base_hazard_of_pancreatic_cancer_alone() -> None:
    general, enriched = process_of("general"), process_of("pancreas")
    c25 = general.index("C25")
    assert enriched.effects == general.effects
    assert np.allclose(enriched.base[:, :, c25], general.base[:, :, c25] * ENRICHED_BY)
    others = np.arange(general.base.shape[2]) != c25
    assert np.array_equal(enriched.base[:, :, others], general.base[:, :, others])


def test_the_identity_tells_hospitals_apart() -> None:
    order = Order(1_000, "general", 1)
    others = [dataclasses.replace(order, **change) for change in ({"patients": 2}, {"preset": "pancreas"}, {"seed": 2})]
    assert len({order.identity, *(other.identity for other in others)}) == 4
