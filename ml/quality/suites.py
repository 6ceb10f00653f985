"""The suites: for each kind of record, the expectations it has. The one list; the code and its tests read it."""

from __future__ import annotations

from dataclasses import dataclass

from ml.quality.rules import AGGREGATE_RULES, CODE_SYSTEMS, CODED_KINDS_LEFT_OUT, ROW_RULES, code_rule

EVENT = ("time_present", "not_after_recorded", "not_before_birth", "not_after_death", "unique_version")
CODES = ("code_present", *map(code_rule, CODE_SYSTEMS))
ROWS_PLACED = ("rows_placed", "mostly_placed")
VOLUME = ("volume_of_kind", "kind_present")
DRIFT = ("code_stability", "codes_new", "codes_vanished", "dictionary_share", "mapping_share")


@dataclass(frozen=True)
class Suite:
    """The expectations of one kind of record.

    Attributes:
        rows: asked of each of its rows.
        codes: asked of each of its codes.
        aggregates: asked of its counts.
    """

    rows: tuple[str, ...]
    codes: tuple[str, ...] = CODES
    aggregates: tuple[str, ...] = (*ROWS_PLACED, "unmapped_codes", *VOLUME, *DRIFT)

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.rows, *self.codes, *self.aggregates)


_UNCODED = (*ROWS_PLACED, *VOLUME, *DRIFT)
_PERSON = Suite((*EVENT, "plausible_birth"), aggregates=_UNCODED)
_VISIT = _DEATH = Suite(EVENT, aggregates=_UNCODED)
_CODED = Suite(EVENT)
_MEASURED = Suite((*EVENT, "numeric_finite"))
SUITES = {
    # OMOP
    "person": _PERSON,
    "visit_occurrence": _VISIT,
    "condition_occurrence": _CODED,
    "procedure_occurrence": _CODED,
    "drug_exposure": _CODED,
    "measurement": _MEASURED,
    "observation": _MEASURED,
    "death": _DEATH,
    # MIMIC-IV
    "patients": _PERSON,
    "admissions": _VISIT,
    "diagnoses_icd": _CODED,
    "procedures_icd": _CODED,
    "prescriptions": _CODED,
    "labevents": _MEASURED,
    "deaths": _DEATH,
}
PARTITION = tuple(rule.name for rule in AGGREGATE_RULES.values() if rule.per == "partition")
_ANY = Suite((*EVENT, "plausible_birth", "numeric_finite"))


def suite_of(kind: str) -> Suite:
    """The suite of a kind; a kind that is not listed, of an adapter to come, has every expectation."""
    if kind in CODED_KINDS_LEFT_OUT and kind not in SUITES:
        return Suite(_ANY.rows, aggregates=_UNCODED)
    return SUITES.get(kind, _ANY)


def every_expectation() -> tuple[str, ...]:
    """Names of all expectations, each once."""
    return (*ROW_RULES, *AGGREGATE_RULES)
