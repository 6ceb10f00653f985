"""Codes mapped while extracting: what the log holds, what is counted, and that two settings are never mixed."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from ml.common.errors import ConfigError
from ml.extraction import extract
from ml.extraction.log import pending_partition
from ml.extraction.reconcile import reconcile
from ml.settings import Settings, get_settings
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE

NEXT = BASE + timedelta(days=1)


@pytest.fixture
def mapped(vigil: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("VIGIL_ICD9_TO_ICD10", "true")
    monkeypatch.setenv("VIGIL_CALENDAR_END", "2024-12-31")
    get_settings.cache_clear()
    hospital.build()
    hospital.add("concept", concept_id=104, concept_name="none", vocabulary_id="ICD9CM", concept_code="999.999")
    hospital.add_condition(900, 2, date(2024, 1, 4), 103)  # ICD9CM//428.0
    hospital.add_condition(901, 2, date(2024, 1, 4), 104)  # no such code
    return get_settings()


def test_the_log_holds_the_mapped_code_and_counts_what_has_none(mapped: Settings) -> None:
    view = hospital.view(hospital.night(BASE))
    assert hospital.codes_of(view, "condition_occurrence/900") == ["ICD10CM//I50.9"]
    assert hospital.codes_of(view, "condition_occurrence/901") == ["ICD9CM//999.999"]
    hospital.add_condition(902, 3, NEXT, 104, recorded=NEXT)
    hospital.add_condition(903, 3, NEXT, 103, recorded=NEXT)
    extract(NEXT)
    pending = pending_partition(NEXT)
    assert pending is not None
    assert pending.unmapped == {"condition_occurrence": 1}
    assert pending.vocabularies == {"ICD10CM": 1, "ICD9CM": 1}


def test_a_reconciliation_compares_mapped_with_mapped(mapped: Settings) -> None:
    hospital.night(BASE)
    assert reconcile().differences == 0
    hospital.run("update ehr.condition_occurrence set condition_concept_id = 102 where condition_occurrence_id = 900")
    assert reconcile().differences == 1


def test_a_log_made_with_another_setting_is_refused(mapped: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.night(BASE)
    monkeypatch.setenv("VIGIL_ICD9_TO_ICD10", "false")
    get_settings.cache_clear()
    with pytest.raises(ConfigError, match="another setting of icd9_to_icd10"):
        extract(NEXT)


def test_a_table_that_every_night_reads_whole_is_named(vigil: Settings, caplog: pytest.LogCaptureFixture) -> None:
    hospital.build()
    hospital.run("drop index ehr.measurement_recorded")
    hospital.run("analyze ehr.measurement")
    with caplog.at_level("WARNING"):
        extract(BASE)
    assert "measurement" in caplog.text
    assert "recorded_at" in caplog.text
    assert "condition_occurrence" not in caplog.text
