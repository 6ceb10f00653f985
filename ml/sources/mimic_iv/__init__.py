"""MIMIC-IV's hosp schema: patients, admissions, diagnoses_icd; prescriptions, labevents, procedures_icd if present.

MIMIC keeps no history. What an admission brought is taken as known at discharge; a date of death at the end of its day.
"""

from pathlib import Path

from ml.sources.base import SqlSource
from ml.sources.tables import Table

_PATIENT = {"subject_id": "integer", "gender": "text", "anchor_age": "integer", "anchor_year": "integer"}
_ADMISSION = {
    "subject_id": "integer",
    "hadm_id": "integer",
    "admittime": "timestamp",
    "dischtime": "timestamp",
    "admission_type": "text",
}
_ICD = {
    "subject_id": "integer",
    "hadm_id": "integer",
    "seq_num": "integer",
    "icd_code": "text",
    "icd_version": "integer",
}
_PRESCRIPTION = {"subject_id": "integer", "hadm_id": "integer", "starttime": "timestamp", "drug": "text"}
_LAB = {
    "labevent_id": "bigint",
    "subject_id": "integer",
    "hadm_id": "integer",
    "itemid": "integer",
    "charttime": "timestamp",
    "valuenum": "double precision",
}


def _table(name: str, required: dict[str, str], assumed: str, **more: object) -> Table:
    return Table(name, required=required, subject="subject_id", assumed=assumed, **more)  # type: ignore[arg-type]


MIMIC_IV = SqlSource(
    name="mimic_iv",
    folder=Path(__file__).parent,
    tables=(
        _table("patients", _PATIENT, "patients.sql", optional={"dod": "date"}),
        _table("deaths", {"subject_id": "integer", "dod": "date"}, "deaths.sql", table="patients"),
        _table("admissions", _ADMISSION, "admissions.sql", optional={"race": "text"}, key="hadm_id"),
        _table("diagnoses_icd", _ICD, "discharge.sql"),
        _table("procedures_icd", _ICD, "discharge.sql", optional={"chartdate": "date"}, may_be_absent=True),
        _table("prescriptions", _PRESCRIPTION, "discharge.sql", optional={"ndc": "text"}, may_be_absent=True),
        _table(
            "labevents",
            _LAB,
            "labevents.sql",
            optional={"storetime": "timestamp", "value": "text"},
            key="labevent_id",
            may_be_absent=True,
        ),
        Table("d_labitems", {"itemid": "integer"}, {"loinc_code": "text"}, may_be_absent=True),
    ),
    kinds={
        "patients": "patients",
        "admissions": "admissions",
        "diagnoses_icd": "diagnoses_icd",
        "procedures_icd": "procedures_icd",
        "prescriptions": "prescriptions",
        "labevents": "labevents",
        "deaths": "deaths",
    },
)
