"""Which code an OMOP record gets: as recorded, or the standard concept it maps to."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ml.settings import Settings, get_settings
from ml.sources.loading import omop
from ml.sources.loading.load import load
from tests.ml import small_hospital as hospital
from tests.ml.sources.source_rows import codes, events

DAY = date(2024, 2, 1)
CONCEPTS = [
    # id, vocabulary, code, domain, standard, invalid
    (1001, "ICD10CM", "E11.21", "Condition", None, None),
    (1002, "ICD10CM", "Z99.9", "Condition", None, None),
    (2001, "SNOMED", "127013003", "Observation", "S", None),
    (2002, "SNOMED", "44054006", "Condition", "S", None),
    (2003, "SNOMED", "73211009", "Condition", "S", None),
    (2004, "SNOMED", "old", "Condition", None, "U"),
    (2005, "SNOMED", "class", "Condition", "C", None),
    (2006, "SNOMED", "gone", "Condition", "S", "D"),
]
MAPS = [
    # from, to, relationship, invalid: 1001 has two targets in its own domain, and one with a lower id in another
    (1001, 2001, "Maps to", None),
    (1001, 2003, "Maps to", None),
    (1001, 2002, "Maps to", None),
    (1002, 2002, "Maps to", "D"),
    (1002, 2002, "Is a", None),
    (1002, 2005, "Maps to", None),
    (1002, 2006, "Maps to", None),
    (2004, 2003, "Maps to", None),
    (0, 2002, "Maps to", None),
]
RECORDS = {
    # key: concept, source concept, source value
    900: (2002, 1001, "a"),  # both
    901: (0, 1001, "b"),  # source only: it maps
    902: (0, 1002, "c"),  # source only: no valid map
    903: (2004, 1002, "d"),  # what was standard is no longer, and has a successor
    904: (2004, 1001, "e"),
    905: (2003, 0, "f"),  # standard only
    906: (0, 0, "g"),
    907: (0, None, None),
    908: (9999, 9998, "h"),  # not in the concept table
}
AS_RECORDED = {
    900: "ICD10CM//E11.21",
    901: "ICD10CM//E11.21",
    902: "ICD10CM//Z99.9",
    903: "ICD10CM//Z99.9",
    904: "ICD10CM//E11.21",
    905: "SNOMED//73211009",
    906: "SOURCE//g",
    907: "SOURCE//",
    908: "SOURCE//h",
}
STANDARD = {
    **AS_RECORDED,
    900: "SNOMED//44054006",
    901: "SNOMED//44054006",
    903: "SNOMED//73211009",
    904: "SNOMED//73211009",
}


def choose(monkeypatch: pytest.MonkeyPatch, codes: str) -> None:
    monkeypatch.setenv("VIGIL_OMOP_CODES", codes)
    get_settings.cache_clear()


@pytest.fixture
def coded(vigil: Settings) -> Settings:
    hospital.build()
    with hospital.together():
        for concept, vocabulary, code, domain, standard, invalid in CONCEPTS:
            hospital.add(
                "concept", concept_id=concept, concept_name=code, vocabulary_id=vocabulary, concept_code=code,
                domain_id=domain, standard_concept=standard, invalid_reason=invalid,
            )  # fmt: skip
        for one, other, relationship, invalid in MAPS:
            hospital.add(
                "concept_relationship", concept_id_1=one, concept_id_2=other, relationship_id=relationship,
                invalid_reason=invalid,
            )  # fmt: skip
        for key, (concept, source, value) in RECORDS.items():
            more: dict[str, Any] = {"condition_source_concept_id": source, "condition_source_value": value}
            hospital.add_condition(key, 3, DAY, concept, **more)
    return vigil


def found(keys: dict[int, str]) -> dict[int, str]:
    given = codes("condition_occurrence")
    return {key: given[f"condition_occurrence/{key}"] for key in keys}


def test_as_recorded_is_the_source_concept_else_the_standard_one_else_the_source_value(coded: Settings) -> None:
    assert found(AS_RECORDED) == AS_RECORDED


def test_standard_is_the_valid_standard_concept_that_the_record_has_or_maps_to(
    coded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "standard")
    assert found(STANDARD) == STANDARD


@pytest.mark.parametrize("choice", ["source", "standard"])
def test_a_concept_that_maps_to_several_does_not_multiply_the_record(
    coded: Settings, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    choose(monkeypatch, choice)
    assert len(events("condition_occurrence")) == hospital.PEOPLE + len(RECORDS)


def test_without_relationships_the_standard_concept_of_the_record_is_all_there_is(
    coded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.run("drop table ehr.concept_relationship")
    assert found(AS_RECORDED) == AS_RECORDED
    choose(monkeypatch, "standard")
    assert found(STANDARD) == {**AS_RECORDED, 900: STANDARD[900]}


@pytest.mark.parametrize(
    "without",
    [
        "alter table ehr.concept drop column standard_concept, drop column domain_id",
        "update ehr.concept set standard_concept = null",
    ],
)
def test_where_concepts_are_not_marked_as_standard_every_valid_one_counts(
    coded: Settings, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    hospital.run(without)
    choose(monkeypatch, "standard")
    given = found(STANDARD)
    assert given[900] == "SNOMED//44054006"
    assert given[902] == "SNOMED//class"  # valid, and not marked as the mere classification it is
    assert given[903] == "SNOMED//73211009"


def test_the_gibleed_export_gives_codes_of_its_own_concepts(
    vigil: Settings, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("person", "condition_occurrence", "concept"):
        (tmp_path / f"{name}.csv.gz").symlink_to(records / "gibleed-omop" / f"{name}.csv.gz")
    (tmp_path / "concept_relationship.csv.gz").symlink_to(records / "gibleed-omop" / "concept_relationship.csv.gz")
    report = load(omop.LOADER, tmp_path)
    assert (report.rows["concept"], report.rows["concept_relationship"]) == (444, 8)
    recorded = codes("condition_occurrence")
    assert len(recorded) == 65_332
    choose(monkeypatch, "standard")
    standard = codes("condition_occurrence")
    changed = {key for key, code in recorded.items() if standard[key] != code}
    assert {(recorded[key], standard[key]) for key in changed} == {("ICD10CM//K92.2", "SNOMED//74474003")}
    assert len(changed) == 479
