"""Records that change their person, patients who are merged, and what a night has to read to see it."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from ml.common.db import connect, fetch
from ml.settings import Role, Settings
from ml.sources import MissingIndex, SourcePlan
from tests.ml import small_hospital as hospital
from tests.ml.small_hospital import BASE
from tests.ml.sources.source_rows import EVER, events, plan

NEXT = BASE + timedelta(days=1)
LATER = BASE + timedelta(days=2)
TABLE = "condition_occurrence"


@pytest.fixture
def small(vigil: Settings) -> Settings:
    hospital.build()
    return vigil


def owners(key: int, **span: date) -> list[tuple[int, datetime, bool]]:
    """Person, time of recording and whether taken back, of a condition's events."""
    found = [row for row in events(TABLE, **span) if row.source_key == f"{TABLE}/{key}"]
    return sorted((row.subject_id, row.recorded_at, row.removed) for row in found)


def noon(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time()) + timedelta(hours=12)


def test_a_merged_patient_leaves_the_view_and_his_records_go_to_the_other(small: Settings) -> None:
    hospital.add("death", date(2024, 1, 20), person_id=5, death_date=date(2024, 1, 20))
    yesterday = hospital.view(hospital.night(BASE))
    with hospital.together():
        day = date(2024, 1, 6)
        hospital.add_visit(5, 6, day, recorded=NEXT)
        hospital.add_condition(5, 6, day, recorded=NEXT)
        for table, key, more in (
            ("drug_exposure", "drug_exposure_id", {"drug_concept_id": 201, "drug_exposure_start_date": day}),
            ("measurement", "measurement_id", {"measurement_concept_id": 301, "measurement_date": day}),
        ):
            hospital.add(table, NEXT, **{key: 5, "person_id": 6, **more})
        hospital.add("death", NEXT, person_id=5, death_date=date(2024, 1, 20), removed=True)
        hospital.add("death", NEXT, person_id=6, death_date=date(2024, 1, 20))
        hospital.add("person", NEXT, person_id=5, gender_concept_id=8532, year_of_birth=1955, removed=True)
    snapshot = hospital.night(NEXT)
    today = hospital.view(snapshot)
    keys = {f"{table}/5" for table in ("visit_occurrence", TABLE, "drug_exposure", "measurement")}
    assert {*today.filter(today["source_key"].is_in(list(keys)))["subject_id"]} == {6}
    assert 5 not in today["subject_id"]
    assert today.filter(today["code"] == "MEDS_DEATH")["subject_id"].sort().to_list() == [1, 6]
    assert hospital.view(snapshot, BASE).equals(yesterday)
    assert yesterday.filter(yesterday["subject_id"] == 5)["source_key"].n_unique() == 4 + 3 + 1


def test_a_record_that_comes_back_is_taken_from_whoever_had_it_in_between(small: Settings) -> None:
    hospital.add_condition(4, 11, date(2024, 1, 5), recorded=NEXT)
    hospital.add_condition(4, 4, date(2024, 1, 5), recorded=LATER)
    first = noon(date(2024, 1, 5))
    versions = [(4, first, False), (4, noon(NEXT), True), (4, noon(LATER), False)]
    versions += [(11, noon(NEXT), False), (11, noon(LATER), True)]
    assert owners(4) == versions
    nights = [owners(4, recorded_from=day, recorded_to=day) for day in (NEXT, LATER)]
    assert sorted([versions[0], *nights[0], *nights[1]]) == versions


def test_a_tombstone_that_the_source_writes_itself_is_not_doubled(small: Settings) -> None:
    hospital.run(f"alter table ehr.{TABLE} drop constraint {TABLE}_pkey")
    hospital.add_condition(4, 4, date(2024, 1, 5), recorded=NEXT, removed=True)
    hospital.add_condition(4, 11, date(2024, 1, 5), recorded=NEXT)
    assert owners(4, recorded_from=NEXT, recorded_to=NEXT) == [(4, noon(NEXT), True), (11, noon(NEXT), False)]


def test_a_record_that_loses_its_person_is_taken_from_the_one_it_had(small: Settings) -> None:
    hospital.run(f"alter table ehr.{TABLE} alter person_id drop not null")
    hospital.add_condition(4, None, date(2024, 1, 5), recorded=NEXT)  # type: ignore[arg-type]
    span = {"recorded_from": NEXT, "recorded_to": NEXT}
    assert [(row.subject_id, row.removed) for row in events(TABLE, **span) if row.subject_id] == [(4, True)]


class Version(NamedTuple):
    """One version of a record, as the source has it."""

    key: int
    person: int
    hour: int
    removed: bool


def expected(versions: list[Version]) -> set[tuple[int, int, int, bool]]:
    """Person, key, hour and whether removed, of every event: the rule in other words than the SQL's."""
    rows = {(v.person, v.key, v.hour, v.removed) for v in versions}
    named: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for v in versions:
        named[v.key][v.hour].add(v.person)
    for key, hours in named.items():
        earlier: set[int] = set()
        for hour in sorted(hours):
            rows |= {(person, key, hour, True) for person in earlier - hours[hour]}
            earlier |= hours[hour]
    return rows


def one_instant_once(versions: list[Version]) -> list[Version]:
    return list({(v.key, v.person, v.hour): v for v in versions}.values())


version = st.builds(Version, st.integers(1, 3), st.integers(1, 3), st.integers(0, 71), st.booleans())


@pytest.fixture(params=["with", "without"])
def made(request: pytest.FixtureRequest, small: Settings) -> SourcePlan:
    """Conditions without a row; without a key two versions may have one instant, and the base load another shape."""
    hospital.run(f"alter table ehr.{TABLE} drop constraint {TABLE}_pkey")
    if request.param == "with":
        hospital.run(f"create index condition_key on ehr.{TABLE} ({TABLE}_id)")
    return plan()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(version, max_size=14).map(one_instant_once))
@example(versions=[Version(1, 1, 0, False), Version(1, 2, 30, False), Version(1, 1, 60, False)])
@example(versions=[Version(1, 1, 0, False), Version(1, 2, 30, False), Version(1, 3, 30, True)])
def test_nights_and_a_base_load_give_the_same_tombstones_as_the_rule(made: SourcePlan, versions: list[Version]) -> None:
    start = datetime(2024, 3, 1)
    with hospital.together():
        hospital._open[0].cursor().execute(f"delete from ehr.{TABLE}")  # noqa: S608 (a name from here)
        for v in versions:
            hospital.add(
                TABLE, condition_occurrence_id=v.key, person_id=v.person, condition_concept_id=101, removed=v.removed,
                condition_start_date=start.date(), recorded_at=start + timedelta(hours=v.hour),
            )  # fmt: skip

    def read(**span: Any) -> list[tuple[int, int, int, bool]]:
        return [
            (
                row.subject_id,
                int(row.source_key.split("/")[1]),
                (row.recorded_at - start) // timedelta(hours=1),
                row.removed,
            )
            for row in events(TABLE, made=made, **span)
        ]

    days = [start.date() + timedelta(days=n) for n in range(3)]
    nights = [row for day in days for row in read(recorded_from=day, recorded_to=day)]
    base = read(recorded_to=days[-1])
    assert sorted(base) == sorted(expected(versions))
    assert sorted(nights) == sorted(base)


MANY = """
insert into ehr.condition_occurrence (
    condition_occurrence_id, person_id, condition_concept_id, condition_start_date, recorded_at
)
select 1000 + n, n % 500, 101, date '2020-01-01' + n % 1000, timestamp '2020-01-01' + n * interval '10 minutes'
from generate_series(1, 60000) n
"""
MOVES = """
insert into ehr.condition_occurrence (
    condition_occurrence_id, person_id, condition_concept_id, condition_start_date, recorded_at
)
select condition_occurrence_id, person_id + 1, 101, condition_start_date, recorded_at + interval '20 days'
from ehr.condition_occurrence where condition_occurrence_id % 50 = 0
"""


def scans(kind: str, recorded_from: date | None, recorded_to: date) -> list[tuple[str, str]]:
    """Node type and index of all reads of the kind's own table in the planner's plan."""
    query = next(found for found in plan().kinds if found.kind == kind).events(recorded_from, recorded_to)
    with connect(Role.EXTRACT, readonly=True) as connection:
        rows = fetch(connection, sql.SQL("explain (format json) {}").format(query))
    found: list[tuple[str, str]] = []

    def walk(node: dict[str, Any]) -> None:
        if node.get("Relation Name") == kind or (node["Node Type"] == "Bitmap Index Scan"):
            found.append((node["Node Type"], node.get("Index Name", "")))
        for child in node.get("Plans", []):
            walk(child)

    walk(json.loads(json.dumps(rows[0][0]))[0]["Plan"])
    return found


@pytest.fixture
def large(small: Settings) -> None:
    hospital.run(MANY)
    hospital.run(MOVES)
    hospital.run("analyze ehr.condition_occurrence")


def test_a_night_reads_its_own_rows_and_their_earlier_versions_by_index(large: None) -> None:
    night = scans(TABLE, date(2020, 12, 1), date(2020, 12, 1))
    assert {index for _, index in night if index} == {f"{TABLE}_recorded", f"{TABLE}_pkey"}
    assert "Seq Scan" not in {node for node, _ in night}


def test_a_base_load_reads_the_table_once_and_the_moved_records_by_key(large: None) -> None:
    whole = scans(TABLE, None, EVER)
    assert [node for node, _ in whole].count("Seq Scan") <= 2  # the rows, and one pass that finds what moved
    assert (("Index Scan", f"{TABLE}_pkey")) in whole


def test_tables_as_they_are_shipped_lack_no_index(small: Settings) -> None:
    assert plan().unindexed == ()


def test_a_table_without_an_index_on_recorded_at_is_named_with_its_size(large: None) -> None:
    hospital.run(f"drop index ehr.{TABLE}_recorded")
    hospital.run(f"create index a_part on ehr.{TABLE} (recorded_at) where removed")  # it holds a part of the rows
    hospital.run(f"create index another on ehr.{TABLE} (person_id, recorded_at)")  # it begins with another column
    assert plan().unindexed == (MissingIndex(f"ehr.{TABLE}", "recorded_at", 61_220),)
    said = str(plan().unindexed[0])
    assert said == (
        "ehr.condition_occurrence has no index that begins with recorded_at: "
        "every night reads all its 61,220 rows (about)"
    )
    hospital.run(f"create index some_blocks on ehr.{TABLE} using brin (recorded_at)")
    assert plan().unindexed == ()


def test_a_table_without_an_index_on_its_key_is_named_and_one_never_counted_says_so(small: Settings) -> None:
    hospital.run("alter table ehr.visit_occurrence drop constraint visit_occurrence_pkey")
    assert plan().unindexed == (MissingIndex("ehr.visit_occurrence", "visit_occurrence_id", None),)
    assert "every night reads all its rows" in str(plan().unindexed[0])


def test_nothing_is_said_of_views_and_of_tables_without_history(small: Settings) -> None:
    hospital.run(f"alter table ehr.{TABLE} rename to hidden; create view ehr.{TABLE} as table ehr.hidden")
    hospital.run("alter table ehr.measurement drop column recorded_at")
    assert plan().unindexed == ()


def test_a_lookup_of_a_table_with_history_sees_the_newest_version_alone(small: Settings) -> None:
    """Conditions without history become known with their visit; a corrected visit must not double them."""
    hospital.run(f"alter table ehr.{TABLE} drop column recorded_at")
    hospital.run("update ehr.condition_occurrence set visit_occurrence_id = condition_occurrence_id")
    hospital.add_visit(4, 4, date(2024, 1, 5), recorded=NEXT, visit_end_date=date(2024, 1, 9))
    hospital.add_visit(5, 5, date(2024, 1, 6), recorded=NEXT, removed=True)
    rows = events(TABLE)
    assert len(rows) == hospital.PEOPLE
    recorded = {row.source_key: row.recorded_at.date() for row in rows}
    assert recorded[f"{TABLE}/4"] == date(2024, 1, 9)
    assert recorded[f"{TABLE}/5"] == date(2024, 1, 6)
