"""``vigil load mimic-iv``: MIMIC-IV's hosp files, each patient's dates shifted into the years they are really from.

MIMIC's dates lie in 2110-2201, shifted per patient. ``anchor_year_group`` tells the three years in which the patient's
``anchor_year`` really lies. Each patient is moved by a whole number of days, so that 1 January of anchor_year becomes 1
January of the middle year of that group: intervals within a patient stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from psycopg2 import sql

from ml.sources.loading.convert import TableSpec
from ml.sources.loading.load import Loader
from ml.sources.loading.session import LoadSession
from ml.sources.mimic_iv import MIMIC_IV

PATIENT_TABLES = ("patients", "admissions", "diagnoses_icd", "procedures_icd", "prescriptions", "labevents")
KEYS: dict[str, tuple[str, ...]] = {
    "patients": ("subject_id",),
    "admissions": ("hadm_id",),
    "diagnoses_icd": ("hadm_id", "seq_num"),
    "procedures_icd": ("hadm_id", "seq_num"),
    "labevents": ("labevent_id",),
    "d_labitems": ("itemid",),
}
GROUP = r"^\d{4} - \d{4}$"

SHIFTED = """
(select t.*, p.middle, p.days from {staging} t join (
    select subject_id, middle, make_date(middle, 1, 1) - make_date(anchor_year, 1, 1) as days
    from (
        select
            subject_id, anchor_year, (left(anchor_year_group, 4)::int + right(anchor_year_group, 4)::int) / 2 as middle
        from {patients}
    ) anchored
) p using (subject_id))
"""


def fill(session: LoadSession, files: Mapping[str, Path]) -> tuple[str, list[str]]:
    """Stage and insert, dates shifted."""
    for table in (*PATIENT_TABLES, "d_labitems"):
        if table in files:
            session.stage(_spec(session, table), files[table])
        if table == "patients":
            session.subjects = session.ids("patients", "subject_id")
        if table == "admissions":
            session.visits = session.ids("admissions", "hadm_id")
    for table in session.staged:
        _insert(session, table)
    return "assumed", [
        "dates shifted per patient by whole days, so that anchor_year is the middle of its anchor_year_group; "
        "intervals kept",
        "MIMIC keeps no history: what an admission brought is taken as known at discharge",
        *_reported(session),
    ]


def _spec(session: LoadSession, table: str) -> TableSpec:
    columns = session.catalogue(table)
    refers = table not in ("patients", "d_labitems")
    return TableSpec(
        table,
        columns={name: kind for name, (kind, _) in columns.items()},
        required=frozenset(name for name, (_, needed) in columns.items() if needed),
        key=KEYS.get(table, ()),
        subject="subject_id" if refers else None,
        visit="hadm_id" if refers and table != "admissions" else None,
        visit_required=table in ("diagnoses_icd", "procedures_icd"),
        patterns={"anchor_year_group": GROUP} if table == "patients" else {},
    )


def _insert(session: LoadSession, table: str) -> None:
    names = session.columns[table]
    if table not in PATIENT_TABLES:
        session.insert(table, session.staging(table), names)
        return
    kinds = session.catalogue(table)
    shifted: dict[str, sql.Composable] = {
        name: _shift(name, kinds[name][0]) for name in names if kinds[name][0] in ("date", "timestamp")
    }
    if table == "patients":
        shifted["anchor_year"] = sql.SQL("t.middle")
    rows = sql.SQL(SHIFTED).format(staging=session.staging(table), patients=session.staging("patients"))
    session.insert(table, rows, names, shifted)


def _shift(name: str, kind: str) -> sql.Composable:
    return sql.SQL("(t.{} + t.days * interval '1 day')::{}").format(sql.Identifier(name), sql.SQL(kind))


def _reported(session: LoadSession) -> list[str]:
    return [
        f"{report.table}: {report.without_visit:,} rows name an admission that does not exist; kept without it"
        for report in session.reports
        if report.without_visit
    ]


LOADER = Loader(
    name="mimic-iv",
    layout="mimic_iv",
    ddl=MIMIC_IV.folder / "ddl.sql",
    required=("patients", "admissions", "diagnoses_icd"),
    used=(*PATIENT_TABLES, "d_labitems"),
    fill=fill,
)
