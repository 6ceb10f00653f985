"""ICD-9-CM to ICD-10-CM: which target a code gets, and how much has none."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from ml.settings import Settings
from ml.sources import CodeMapping, code_mapping
from ml.sources.mapping import icd9_to_icd10


@pytest.fixture(scope="module")
def gem() -> CodeMapping:
    return icd9_to_icd10()


def test_it_is_off_unless_asked_for() -> None:
    assert code_mapping(Settings(icd9_to_icd10=False)) is None
    assert code_mapping(Settings(icd9_to_icd10=True)) is icd9_to_icd10()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("ICD9CM//428.0", "ICD10CM//I50.9", "one target"),
        ("ICD9CM//401.9", "ICD10CM//I10", "a category of three characters has no dot"),
        ("ICD9CM//V58.67", "ICD10CM//Z79.4", "V codes"),
        ("ICD9CM//E849.8", "ICD10CM//Y92.89", "E codes"),
        ("ICD9CM//428.0 ", "ICD9CM//428.0 ", "what is not a code stays"),
        ("ICD9CM//272.4", "ICD10CM//E78.5", "of E78.4 and E78.5 the unspecified one"),
        ("ICD9CM//787.91", "ICD10CM//R19.7", "of three the unspecified one, not the first"),
        ("ICD9CM//518.81", "ICD10CM//J96.00", "both unspecified: the first"),
        (
            "ICD9CM//250.82",
            "ICD10CM//E11.69",
            "two together: the first place of the first scenario, not the first code",
        ),
        ("ICD9CM//428", "ICD10CM//I50", "all codes below lie in one category"),
        ("ICD9CM//250", "ICD9CM//250", "the codes below lie in several"),
        ("ICD9CM//E947.8", "ICD9CM//E947.8", "the GEMs say that there is none"),
        ("ICD9CM//999.999", "ICD9CM//999.999", "no such code"),
        ("ICD9Proc//39.95", "ICD9Proc//39.95", "procedures stay"),
        ("ICD10CM//I50.9", "ICD10CM//I50.9", "what is new stays"),
        ("LOINC//4548-4", "LOINC//4548-4", "other vocabularies stay"),
        ("MEDS_BIRTH", "MEDS_BIRTH", "no vocabulary"),
    ],
)
def test_a_code_gets_its_target(gem: CodeMapping, old: str, new: str, why: str) -> None:
    assert gem.map(old) == new, why


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_an_array_keeps_its_length_type_and_nulls(gem: CodeMapping, kind: pa.DataType) -> None:
    codes = pa.array(["ICD9CM//428.0", None, "ICD9CM//250", "ATC//A10BA02"], kind)
    mapped = gem.apply(codes)
    assert mapped.equals(pa.array(["ICD10CM//I50.9", None, "ICD9CM//250", "ATC//A10BA02"], kind))
    assert gem.apply(mapped).equals(mapped)
    assert gem.unmapped(codes).to_pylist() == gem.unmapped(mapped).to_pylist() == [False, False, True, False]


def test_every_target_is_written_as_a_code_of_icd_10_cm(gem: CodeMapping) -> None:
    form = r"^ICD10CM//[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?$"
    mapped = pl.Series([gem.map(f"ICD9CM//{code}") for code in gem.targets])
    assert mapped.str.contains(form).all()


def shares(gem: CodeMapping, plain: pl.Series) -> dict[str, int]:
    """Rows and codes, and those of them without a target."""
    counted = plain.str.strip_chars().str.replace_all(".", "", literal=True).value_counts(name="rows")
    unmapped = gem.unmapped(pa.array("ICD9CM//" + counted[plain.name])).to_pylist()
    missing = counted.filter(pl.Series(unmapped))
    return {
        "rows": int(counted["rows"].sum()),
        "unmapped_rows": int(missing["rows"].sum()),
        "codes": counted.height,
        "unmapped_codes": missing.height,
    }


def test_the_shares_in_the_documentation_are_those_of_the_real_data(gem: CodeMapping, records: Path) -> None:
    mimic = pl.read_csv(records / "mimic-iv-demo" / "hosp" / "diagnoses_icd.csv.gz", infer_schema_length=0)
    nine = mimic.filter(pl.col("icd_version") == "9")["icd_code"]
    diabetes = pl.read_csv(records / "diabetes130" / "diagnoses.csv.gz", infer_schema_length=0)["code"]
    page = (Path(__file__).parents[3] / "docs" / "reference" / "sources.md").read_text()
    for name, found in (("MIMIC-IV demo", shares(gem, nine)), ("diabetes130", shares(gem, diabetes))):
        rows, codes = found["unmapped_rows"] / found["rows"], found["unmapped_codes"] / found["codes"]
        line = (
            f"| {name} | {found['rows']:,} | {found['unmapped_rows']:,} ({rows:.1%}) "
            f"| {found['codes']:,} | {found['unmapped_codes']:,} ({codes:.1%}) |"
        )
        assert line in page
