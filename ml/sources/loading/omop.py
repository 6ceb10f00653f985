"""``vigil load omop``: an OMOP CDM 5.3 or 5.4 export, as OHDSI tools and Athena write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from psycopg2 import sql

from ml.sources.loading.convert import TableSpec
from ml.sources.loading.load import Loader
from ml.sources.loading.session import LoadSession
from ml.sources.omop import OMOP

# People and visits first: the rest refers to them.
PATIENT_TABLES = (
    "person",
    "visit_occurrence",
    "observation_period",
    "condition_occurrence",
    "drug_exposure",
    "procedure_occurrence",
    "measurement",
    "observation",
    "death",
)
OTHER_TABLES = ("location", "care_site", "concept", "concept_relationship", "vocabulary", "cdm_source")
KEYS: dict[str, tuple[str, ...]] = {
    "death": ("person_id",),
    "concept_relationship": ("concept_id_1", "concept_id_2", "relationship_id"),
    "cdm_source": (),
}
HISTORY = ("recorded_at", "removed")


def fill(session: LoadSession, files: Mapping[str, Path]) -> tuple[str, list[str]]:
    """Stage every table, then insert it with the time each row became known."""
    for table in (*PATIENT_TABLES, *OTHER_TABLES):
        if table in files:
            session.stage(_spec(session, table), files[table])
        if table == "person":
            session.subjects = session.ids("person", "person_id")
        if table == "visit_occurrence" and table in files:
            session.visits = session.ids(table, "visit_occurrence_id")
    kept = True
    for table in session.staged:
        kept &= _insert(session, table)
    return ("kept" if kept else "assumed"), _notes(session, kept)


def _spec(session: LoadSession, table: str) -> TableSpec:
    columns = session.catalogue(table)
    names = set(columns)
    patients = table in PATIENT_TABLES
    return TableSpec(
        table,
        columns={name: kind for name, (kind, _) in columns.items()},
        required=frozenset(name for name, (_, needed) in columns.items() if needed and name not in HISTORY),
        key=KEYS.get(table, (f"{table}_id",)),
        subject="person_id" if patients and table != "person" else None,
        visit="visit_occurrence_id" if "visit_occurrence_id" in names and table != "visit_occurrence" else None,
    )


def _insert(session: LoadSession, table: str) -> bool:
    """Insert a staged table; whether it brought its own history."""
    names = session.columns[table]
    staging: sql.Composable = session.staging(table)
    if table not in PATIENT_TABLES:
        session.insert(table, staging, names)
        return True
    if "recorded_at" in names:
        removed = {"removed": sql.SQL("coalesce(t.removed, false)")}
        session.insert(table, staging, names, removed)
        return True
    own = [name for name in names if name != "removed"]
    session.insert(table, sql.SQL("({})").format(_assumed(session, table, own)), [*own, *HISTORY])
    return False


def _assumed(session: LoadSession, table: str, names: list[str]) -> sql.Composable:
    """The staged rows with the assumed time, by the very rule that the source uses on a schema without history."""
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    for name, kind in VISIT.items():  # what the rules may ask for
        if name in ("visit_occurrence_id", "visit_end_date") and name not in names:
            columns = sql.SQL("{}, null::{} as {}").format(columns, sql.SQL(kind), sql.Identifier(name))
    declared = next((known for known in OMOP.tables if known.name == table), None)
    file = declared.assumed if declared is not None and declared.assumed else "period.sql"
    date = declared.names.get("date", "") if declared is not None else ""
    return sql.SQL((OMOP.folder / "assumed" / file).read_text()).format(
        base=sql.SQL("(select {} from {})").format(columns, session.staging(table)),
        date=sql.Identifier(date),
        visit_occurrence=_staged_or_empty(session, "visit_occurrence", VISIT),
        observation_period=_staged_or_empty(session, "observation_period", PERIOD),
    )


VISIT = {"visit_occurrence_id": "bigint", "person_id": "bigint", "visit_start_date": "date", "visit_end_date": "date"}
PERIOD = {"person_id": "bigint", "observation_period_start_date": "date"}


def _staged_or_empty(session: LoadSession, table: str, columns: Mapping[str, str]) -> sql.Composable:
    present = session.columns.get(table, [])
    fields = [
        sql.Identifier(name)
        if name in present
        else sql.SQL("null::{} as {}").format(sql.SQL(kind), sql.Identifier(name))
        for name, kind in columns.items()
    ]
    chosen = sql.SQL("select {}").format(sql.SQL(", ").join(fields))
    if table not in session.columns:
        return sql.SQL("({} where false)").format(chosen)
    return sql.SQL("({} from {})").format(chosen, session.staging(table))


def _notes(session: LoadSession, kept: bool) -> list[str]:
    notes = []
    if not kept:
        notes.append(
            "the export keeps no history: a row is taken as known when its visit ends, else at the end of its day"
        )
    for report in session.reports:
        if report.without_visit:
            notes.append(
                f"{report.table}: {report.without_visit:,} rows name a visit that does not exist; kept without it"
            )
    return notes


LOADER = Loader(
    name="omop",
    layout="omop",
    ddl=OMOP.folder / "ddl.sql",
    required=("person",),
    used=(*PATIENT_TABLES, *OTHER_TABLES),
    fill=fill,
)
