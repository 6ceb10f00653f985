"""OMOP CDM 5.3 and 5.4, with or without history (``recorded_at``, ``removed``).

A record's code is what the source recorded, or the standard concept it maps to (``code.sql``, ``VIGIL_OMOP_CODES``).
"""

from pathlib import Path

from ml.sources.base import SqlSource
from ml.sources.tables import Table


def _coded(name: str, key: str, stem: str, date: str, **optional: str) -> Table:
    """A table of coded records: condition, drug, procedure, measurement, observation."""
    return Table(
        name,
        required={key: "bigint", "person_id": "bigint", f"{stem}_concept_id": "integer", date: "date"},
        optional={
            f"{date}time": "timestamp",
            "visit_occurrence_id": "bigint",
            f"{stem}_source_value": "text",
            f"{stem}_source_concept_id": "integer",
            **optional,
        },
        subject="person_id",
        key=key,
        may_be_absent=stem in ("procedure", "observation"),
        assumed="event.sql",
        adds="code.sql",
        names={
            "date": date,
            "concept_id": f"{stem}_concept_id",
            "source_concept_id": f"{stem}_source_concept_id",
            "source_value": f"{stem}_source_value",
        },
    )


_PERSON = Table(
    "person",
    required={"person_id": "bigint", "gender_concept_id": "integer", "year_of_birth": "integer"},
    optional={
        "month_of_birth": "integer",
        "day_of_birth": "integer",
        "birth_datetime": "timestamp",
        "race_concept_id": "integer",
        "care_site_id": "integer",
        "gender_source_value": "text",
        "race_source_value": "text",
    },
    subject="person_id",
    assumed="person.sql",
)
_VISIT = Table(
    "visit_occurrence",
    required={
        "visit_occurrence_id": "bigint",
        "person_id": "bigint",
        "visit_concept_id": "integer",
        "visit_start_date": "date",
    },
    optional={"visit_start_datetime": "timestamp", "visit_end_date": "date", "visit_end_datetime": "timestamp"},
    subject="person_id",
    key="visit_occurrence_id",
    assumed="visit.sql",
)
_DEATH = Table(
    "death",
    required={"person_id": "bigint", "death_date": "date"},
    optional={"death_datetime": "timestamp"},
    subject="person_id",
    assumed="death.sql",
)
_CONCEPT = Table(
    "concept",
    required={"concept_id": "integer", "concept_name": "text", "vocabulary_id": "text", "concept_code": "text"},
    optional={"domain_id": "text", "standard_concept": "text", "invalid_reason": "text"},
    adds="concept.sql",
)
_CONCEPT_RELATIONSHIP = Table(
    "concept_relationship",
    required={"concept_id_1": "integer", "concept_id_2": "integer", "relationship_id": "text"},
    optional={"invalid_reason": "text"},
    may_be_absent=True,
)
_CARE_SITE = Table(
    "care_site",
    required={"care_site_id": "integer"},
    optional={"care_site_name": "text", "care_site_source_value": "text"},
    may_be_absent=True,
)
_OBSERVATION_PERIOD = Table(
    "observation_period",
    required={"person_id": "bigint", "observation_period_start_date": "date"},
    may_be_absent=True,
)
_VALUES = {"value_as_number": "double precision", "value_source_value": "text"}

OMOP = SqlSource(
    name="omop",
    folder=Path(__file__).parent,
    tables=(
        _PERSON,
        _VISIT,
        _DEATH,
        _CONCEPT_RELATIONSHIP,
        _CONCEPT,
        _CARE_SITE,
        _OBSERVATION_PERIOD,
        _coded("condition_occurrence", "condition_occurrence_id", "condition", "condition_start_date"),
        _coded("drug_exposure", "drug_exposure_id", "drug", "drug_exposure_start_date"),
        _coded("procedure_occurrence", "procedure_occurrence_id", "procedure", "procedure_date"),
        _coded("measurement", "measurement_id", "measurement", "measurement_date", **_VALUES),
        _coded(
            "observation",
            "observation_id",
            "observation",
            "observation_date",
            value_as_number="double precision",
            value_as_string="text",
        ),
    ),
    kinds={
        kind: kind
        for kind in (
            "person",
            "visit_occurrence",
            "condition_occurrence",
            "drug_exposure",
            "procedure_occurrence",
            "measurement",
            "observation",
            "death",
        )
    },
    flags={"standard_first": lambda settings: settings.omop_codes == "standard"},
)
