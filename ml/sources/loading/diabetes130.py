"""``vigil load diabetes130``: the UCI data set 296 (130 US hospitals, 1999-2008) as OMOP.

The data have no dates. Encounter ids were issued in the order of time, so each encounter is dated by the rank of its id
among all, spread evenly over 1999-01-01 … 2008-12-31. What that means and the other choices are in
``diabetes130.sql`` and, once loaded, in ``cdm_source``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from ml.sources.loading.convert import TableSpec
from ml.sources.loading.load import Loader
from ml.sources.loading.session import LoadSession
from ml.sources.omop import OMOP

HERE = Path(__file__).parent
BAND = r"^\[\d+-\d+\)$"

PATIENTS = TableSpec(
    "patients",
    columns={"patient_id": "bigint", "sex": "text", "race": "text", "age_band_first": "text"},
    required=frozenset({"patient_id"}),
    key=("patient_id",),
)
VISITS = TableSpec(
    "visits",
    columns={
        "visit_id": "bigint",
        "patient_id": "bigint",
        "age": "text",
        "admission_type_id": "integer",
        "discharge_disposition_id": "integer",
        "time_in_hospital": "integer",
    },
    required=frozenset({"visit_id", "patient_id", "age", "discharge_disposition_id", "time_in_hospital"}),
    key=("visit_id",),
    subject="patient_id",
    patterns={"age": BAND},
)
DIAGNOSES = TableSpec(
    "diagnoses",
    columns={"patient_id": "bigint", "visit_id": "bigint", "seq": "integer", "code": "text"},
    required=frozenset({"patient_id", "visit_id", "seq", "code"}),
    key=("visit_id", "seq"),
    subject="patient_id",
    visit="visit_id",
    visit_required=True,
)
MEDICATIONS = TableSpec(
    "medications",
    columns={"patient_id": "bigint", "visit_id": "bigint", "drug": "text", "status": "text"},
    required=frozenset({"patient_id", "visit_id", "drug"}),
    key=("visit_id", "drug"),
    subject="patient_id",
    visit="visit_id",
    visit_required=True,
)


def fill(session: LoadSession, files: Mapping[str, Path]) -> tuple[str, list[str]]:
    """Stage the four files and write them as OMOP."""
    session.stage(PATIENTS, files["patients"])
    session.subjects = session.ids("patients", "patient_id")
    session.stage(VISITS, files["visits"])
    session.visits = session.ids("visits", "visit_id")
    session.stage(DIAGNOSES, files["diagnoses"])
    session.stage(MEDICATIONS, files["medications"])
    session.run("create unlogged table staging_drugs (drug text primary key, atc text not null)")
    session.staged.append("drugs")
    with (HERE / "diabetes130_drugs.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            session.run("insert into staging_drugs values (%s, %s)", (row["drug"], row["atc"]))
    session.run((HERE / "diabetes130.sql").read_text())
    return "assumed", [
        "the data have no dates: each encounter is dated by the rank of its id, spread evenly over 1999-2008; "
        "what is published about time rests on that",
        "birth is the middle of the age band at the first encounter; ages are rough by five years",
        "a row is taken as known at discharge",
    ]


LOADER = Loader(
    name="diabetes130",
    layout="omop",
    ddl=OMOP.folder / "ddl.sql",
    required=("patients", "visits", "diagnoses", "medications"),
    used=("patients", "visits", "diagnoses", "medications"),
    fill=fill,
)
