"""A hospital of twenty people in OMOP, small enough to reason about, and means to change it row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from psycopg2 import sql

import ml.sources.omop
from ml.common.db import Connection, connect, execute, fetch
from ml.extraction import Snapshot, commit_snapshot, extract, read_view
from ml.extraction.log import pending_partition
from ml.quality.verdict import Verdict, write_verdict
from ml.settings import Role

OMOP = Path(ml.sources.omop.__file__).parent
PEOPLE = 20
BASE = date(2024, 1, 31)  # everything of the first hospital is known by then
CONCEPTS = {
    8507: ("Gender", "M"),
    8532: ("Gender", "F"),
    101: ("ICD10CM", "I50.9"),
    102: ("ICD10CM", "E11.9"),
    103: ("ICD9CM", "428.0"),
    201: ("ATC", "A10BA02"),
    301: ("LOINC", "4548-4"),
}
_open: list[Connection] = []
KEYS = {
    "person": "person_id",
    "visit_occurrence": "visit_occurrence_id",
    "condition_occurrence": "condition_occurrence_id",
    "drug_exposure": "drug_exposure_id",
    "measurement": "measurement_id",
    "death": "person_id",
}


def build() -> None:
    """Create the tables and fill them; row n is about person n."""
    with together():
        execute(_open[0], "set local search_path to ehr")
        execute(_open[0], (OMOP / "ddl.sql").read_text())
        execute(_open[0], (OMOP / "keys.sql").read_text())
        _fill()


@contextmanager
def together() -> Iterator[None]:
    """Rows added inside go in as one transaction."""
    with connect(Role.LOAD) as connection:
        _open.append(connection)
        try:
            yield
        finally:
            _open.clear()


def _fill() -> None:
    for concept, (vocabulary, code) in CONCEPTS.items():
        add("concept", concept_id=concept, concept_name=code, vocabulary_id=vocabulary, concept_code=code)
    add("care_site", care_site_id=1, care_site_source_value="A")
    for n in range(1, PEOPLE + 1):
        day = date(2024, 1, 1) + timedelta(days=n)
        add("person", recorded=day, person_id=n, gender_concept_id=8532, year_of_birth=1950 + n, care_site_id=1)
        add_visit(n, n, day)
        add_condition(n, n, day, 101)
        add_drug(n, n, day, 201)
        add_lab(n, n, day, 6.5)
    add("death", recorded=date(2024, 1, 30), person_id=1, death_date=date(2024, 1, 30))


def add(table: str, recorded: date | None = None, **columns: Any) -> None:
    """Insert a row; ``recorded`` is noon of that day."""
    if recorded is not None:
        columns["recorded_at"] = datetime.combine(recorded, datetime.min.time()) + timedelta(hours=12)
    statement = sql.SQL("insert into ehr.{} ({}) values ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
    )
    if _open:
        execute(_open[0], statement, list(columns.values()))
        return
    with connect(Role.LOAD) as connection:
        execute(connection, statement, list(columns.values()))


def add_visit(key: int, person: int, day: date, recorded: date | None = None, **more: Any) -> None:
    columns = {"visit_occurrence_id": key, "person_id": person, "visit_concept_id": 9201, "visit_start_date": day}
    add("visit_occurrence", recorded or day, **{**columns, "visit_end_date": day, **more})


def add_condition(
    key: int, person: int, day: date, concept: int = 101, recorded: date | None = None, **more: Any
) -> None:
    columns = {"condition_occurrence_id": key, "person_id": person, "condition_concept_id": concept}
    add("condition_occurrence", recorded or day, **{**columns, "condition_start_date": day, **more})


def add_drug(key: int, person: int, day: date, concept: int) -> None:
    columns = {"drug_exposure_id": key, "person_id": person, "drug_concept_id": concept}
    add("drug_exposure", day, **columns, drug_exposure_start_date=day)


def add_lab(key: int, person: int, day: date, value: float | None, **more: Any) -> None:
    columns = {"measurement_id": key, "person_id": person, "measurement_concept_id": 301, "measurement_date": day}
    add("measurement", day, **{**columns, "value_as_number": value, **more})


def run(statement: str, *parameters: Any) -> None:
    """A statement as the owner of the tables."""
    with connect(Role.LOAD) as connection:
        execute(connection, statement, parameters or None)


def ask(role: Role, query: str) -> list[tuple[Any, ...]]:
    """Rows of a query."""
    with connect(role) as connection:
        return fetch(connection, query)


def accept(as_of: date) -> None:
    """Give the pending partition a passing verdict without asking Great Expectations."""
    partition = pending_partition(as_of)
    assert partition is not None
    write_verdict(partition, Verdict(as_of, passed=True, empty=False, rows=0, quarantined=0))


def night(as_of: date) -> Snapshot:
    """Extract, accept, commit."""
    if not extract(as_of).covered:
        accept(as_of)
    return commit_snapshot(as_of)


def view(snapshot: Snapshot, as_of: date | None = None) -> pl.DataFrame:
    """The view of all shards."""
    return pl.concat([read_view(snapshot, as_of or snapshot.as_of, shard) for shard in range(snapshot.shards)])


def codes_of(frame: pl.DataFrame, source_key: str) -> list[str]:
    """Codes that the view has for a source row."""
    return frame.filter(pl.col("source_key") == source_key)["code"].to_list()
