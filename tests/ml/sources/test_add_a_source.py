"""docs/how-to/add-a-source.md, followed to the letter; and how a source is found by its name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

import ml.sources
from ml.common.db import connect, execute
from ml.common.errors import ConfigError, SourceError
from ml.settings import Role, Settings, get_settings
from ml.sources import open_source
from tests.ml import small_hospital as hospital
from tests.ml.sources.source_rows import events, plan

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-source.md"
BLOCK = re.compile(r"^`(?P<path>[\w./]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
AS_OF = date(2024, 3, 4)


def blocks() -> dict[str, str]:
    """The page's files, by the path that it gives them."""
    return {match["path"]: match["text"] for match in BLOCK.finditer(PAGE.read_text())}


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the Python path; what was imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "hospital"]:
        del sys.modules[name]


@pytest.fixture
def followed(vigil: Settings, importable: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The page's files, written where it says, and its tables in the EHR schema."""
    found = blocks()
    for name, text in found.items():
        (importable / name).parent.mkdir(parents=True, exist_ok=True)
        (importable / name).write_text(text)
    with connect(Role.LOAD) as connection:
        execute(connection, "set local search_path to ehr")
        execute(connection, found["northlab.sql"])
    monkeypatch.setenv("VIGIL_SOURCE", "hospital.northlab")
    get_settings.cache_clear()
    return found


def test_the_page_has_the_files_it_speaks_of() -> None:
    assert set(blocks()) == {
        *("northlab.sql", "events.csv"),
        *(f"hospital/northlab/{name}" for name in ("__init__.py", "patient.sql", "result.sql", "assumed/patient.sql")),
    }


def test_whoever_follows_the_page_gets_the_events_it_shows(followed: dict[str, str]) -> None:
    shown = pl.read_csv(followed["events.csv"].encode(), try_parse_dates=True)
    found = [row for kind in ("patient", "result") for row in events(kind, recorded_to=AS_OF)]
    assert [
        (row.subject_id, row.time, row.code, None if row.numeric_value is None else round(row.numeric_value, 6))
        for row in found
    ] == shown.select("subject_id", "time", "code", "numeric_value").rows()
    assert [(row.recorded_at, row.source_key, row.removed) for row in found] == shown.select(
        "recorded_at", "source_key", "removed"
    ).rows()
    assert plan().unindexed == ()


def test_the_pages_source_is_extracted_night_by_night(followed: dict[str, str]) -> None:
    before = hospital.view(hospital.night(date(2024, 3, 3)))
    after = hospital.view(hospital.night(AS_OF))

    def results(view: pl.DataFrame) -> set[tuple[int, str, float]]:
        labs = view.filter(pl.col("source_key").str.starts_with("result/"))
        return {(row[0], row[1], round(row[2], 6)) for row in labs.select("subject_id", "code", "numeric_value").rows()}

    assert results(before) == {(7, "LOINC//4548-4", 6.5), (7, "SOURCE//Odd test", 1), (8, "LOINC//2345-7", 5.1)}
    assert results(after) == {(7, "LOINC//4548-4", 7.5), (7, "SOURCE//Odd test", 1), (7, "LOINC//2345-7", 5.1)}
    assert before.filter(pl.col("code") == "MEDS_BIRTH")["time"].min() == datetime(1961, 4, 2)


def test_a_table_of_patients_without_recorded_at_and_without_a_rule_is_refused(followed: dict[str, str]) -> None:
    hospital.run("alter table ehr.lab_result drop column recorded_at cascade")
    with pytest.raises(SourceError, match=r"ehr\.lab_result has no readable column recorded_at"):
        plan()


def test_a_folder_of_ml_sources_is_found_by_its_name_without_being_registered(
    importable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (importable / "northlab").mkdir()
    (importable / "northlab" / "__init__.py").write_text(blocks()["hospital/northlab/__init__.py"])
    monkeypatch.setattr(ml.sources, "__path__", [*ml.sources.__path__, str(importable)])
    assert open_source("northlab").name == "northlab"
    with pytest.raises(ConfigError, match="one of meds, mimic_iv, northlab, omop"):
        open_source("southlab")
    del sys.modules["ml.sources.northlab"]


@pytest.mark.parametrize("name", ["nowhere", "hospital.nowhere", "json", "os.path; x", "", "../omop", "loading"])
def test_a_name_that_is_no_source_is_refused_with_those_there_are(importable: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(name)
    if name != "loading":
        assert "meds, mimic_iv, omop" in caught.value.remedy
    assert open_source("omop").name == "omop"


def test_a_package_with_two_sources_is_refused(importable: Path) -> None:
    (importable / "hospital").mkdir()
    (importable / "hospital" / "both.py").write_text(
        "from ml.sources.omop import OMOP\nfrom ml.sources.meds import MEDS\n"
    )
    with pytest.raises(ConfigError, match=r"hospital\.both holds 2 sources"):
        open_source("hospital.both")
