"""Reading CSV files as they come."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ml.common.errors import SourceError
from ml.sources.loading.convert import TableSpec, convert
from ml.sources.loading.csv_files import Batch, CsvReader, check_file, column_name, find_csv


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("PERSON_ID", "person_id"),
        (" Visit_Start_Date ", "visit_start_date"),
        ("date(birth_datetime,'unixepoch')", "birth_datetime"),
        ("case vocabulary_reference when null then '' else vocabulary_id end", "vocabulary_reference"),
        ("lower( code )", "code"),
    ],
)
def test_headers_are_reduced_to_the_column_they_are_about(header: str, column: str) -> None:
    assert column_name(header) == column


def read(path: Path) -> tuple[Batch, list[tuple[int, str, str]]]:
    reader = CsvReader(path)
    batches = list(reader.batches())
    reader.close()
    lines = [line for batch, _ in batches for line in batch.lines]
    fields = [row for batch, _ in batches for row in batch.fields]
    raw = [text for batch, _ in batches for text in batch.raw]
    return Batch(lines, fields, raw), [(bad.line, bad.reason, bad.raw) for _, found in batches for bad in found]


def test_rows_with_a_wrong_number_of_fields_are_given_with_line_reason_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('x,y\n1,2\n3\n"4\n5",6\n7,8,9\n\n10,11\n')
    good, bad = read(path)
    assert good.fields == [["1", "2"], ["4\n5", "6"], ["10", "11"]]
    assert good.lines == [2, 4, 8]
    assert bad == [(3, "1 fields instead of 2", "3\n"), (6, "3 fields instead of 2", "7,8,9\n")]


def test_tabs_byte_order_marks_and_gzip_are_read(tmp_path: Path) -> None:
    path = tmp_path / "CONCEPT.csv.gz"
    path.write_bytes(gzip.compress('\ufeffconcept_id\tconcept_name\n1\tPatient\'s "own" view\n'.encode()))
    reader = CsvReader(path)
    assert reader.header == ["concept_id", "concept_name"]
    reader.close()
    assert read(path)[0].fields == [["1", 'Patient\'s "own" view']]
    assert find_csv(tmp_path) == {"concept": path}


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_that_is_not_utf8_is_named_with_the_byte(tmp_path: Path, zipped: bool) -> None:
    content = b"a,b\n" + b"x" * (1 << 20) + b",\xe9\n"  # beyond the first block
    path = tmp_path / ("a.csv.gz" if zipped else "a.csv")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(SourceError, match=rf"{path.name} is not UTF-8 \(byte 1,048,581 of") as caught:
        check_file(path)
    assert "iconv" in caught.value.remedy


def test_a_character_cut_by_the_end_of_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("a,b\né".encode()[:-1])
    with pytest.raises(SourceError, match=r"byte 4 of the file"):
        check_file(path)


def test_half_a_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" * 1000)[:-9])
    with pytest.raises(SourceError, match="not a whole gzip file"):
        check_file(path)


KINDS = {"i": "integer", "n": "double precision", "d": "date", "t": "timestamp", "b": "boolean", "s": "text"}


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("i", "7.0", 7),
        ("i", "2147483648", "i is no integer"),
        ("i", "seven", "i is no integer"),
        ("n", "1e-3", 0.001),
        ("n", "NaN", "n is no double precision"),
        ("n", "1,5", "n is no double precision"),
        ("d", "2020-02-29", "2020-02-29"),
        ("d", "20200229", "2020-02-29"),
        ("d", "2020-02-29 13:00:00", "2020-02-29"),
        ("d", "2021-02-29", "d is no date"),
        ("d", "29/02/2020", "d is no date"),
        ("t", "2020-02-29T13:00:00Z", "2020-02-29 13:00:00"),
        ("t", "2020-02-29 13:00:00.5", "2020-02-29 13:00:00.500000"),
        ("t", "2020-02-29 25:00:00", "t is no timestamp"),
        ("b", "F", False),
        ("b", "maybe", "b is no boolean"),
        ("s", "a\x00b", "s holds a NUL byte"),
        ("s", " a ", "a"),
        ("s", "", None),
    ],
)
def test_text_becomes_a_value_or_a_reason(column: str, text: str, value: object) -> None:
    spec = TableSpec("x", columns=KINDS, required=frozenset(), key=())
    found = convert(spec, [column], Batch([2], [[text]], [text]), None, None)
    if found.good.height:
        kept = found.good[column][0]
        assert (str(kept) if isinstance(value, str) else kept) == value
    else:
        assert found.rejected.rows() == [(2, value, text)]
