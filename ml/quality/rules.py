"""The expectations: what is asked of a partition, how severe a failure is, and what a person can do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["warn", "block"]

# A few rows at fault are a hospital's daily life: they are set aside and warned of. More than this share of a kind of
# record, and more than this many rows, is a fault of the source or of its mapping: the night is blocked.
ROW_TOLERANCE = 0.01
ROWS_TOLERATED = 10

CODED_KINDS_LEFT_OUT = ("person", "patients", "visit_occurrence", "admissions", "death", "deaths", "unknown")
UNMAPPED_WARN = 0.20  # share of a kind's rows without a code of any vocabulary
UNMAPPED_BLOCK = 0.95  # of all coded rows
OLDEST_AGE = 130  # years between birth and the recording of it
TRAILING_DAYS = 28
VOLUME_SHARE = 0.5  # a day's rows against the mean of the same weekday, trailing four weeks …
VOLUME_SIGMAS = 4.0  # … or this many standard deviations of a count, for small hospitals
KIND_SHARE = 0.25  # a kind's rows against what its trailing nights say: never held to less than this …
KIND_SIGMAS = 6.0  # … nor to less than this many of their own robust standard deviations
VOLUME_DAYS = 14  # trailing days before a kind has a volume
EXPECTED_IF_ABSENT = 7.0  # a Poisson count of this mean is 0 once in a thousand nights

RECENT_DAYS = 7  # the nights whose codes are compared with the trailing four weeks before them
REFERENCE_DAYS = 7  # days those four weeks must hold
DRIFT_ROWS = 500  # of a kind, on either side: fewer are not judged
PSI_WARN = 0.20
CHANCE = 0.001  # probability that a PSI beyond its limit is chance alone
BIN_ROWS = 10  # a code, or a category, expected less often is counted with the others
NEW_SHARE = 0.05  # rows of a kind with codes it had not before, beyond what its rare codes let expect
REGULAR_ROWS = 10  # a code expected this often and now absent has vanished
SHARE_RISE = 0.10  # of rows without a code of a dictionary, or that the mapping does not know
CODES_NAMED = 20

STATIC = ("GENDER", "RACE", "ETHNICITY", "SITE")  # vocabularies whose events have no time

CODE = r"^[^/\s][^/]*(?://\S.*)?$"  # a vocabulary's name, and for all but MEDS_BIRTH and MEDS_DEATH a code
CODE_SYSTEMS = {
    "ICD10CM": r"^ICD10CM//[A-Z][0-9][0-9A-Z](?:\.[0-9A-Z]{1,4})?$",
    "ICD9CM": r"^ICD9CM//(?:\d{3}(?:\.\d{1,2})?|V\d{2}(?:\.\d{1,2})?|E\d{3}(?:\.\d)?)$",
    "ATC": r"^ATC//[A-Z](?:\d{2}(?:[A-Z](?:[A-Z](?:\d{2})?)?)?)?$",
    "LOINC": r"^LOINC//\d{1,7}-\d$",
}


def code_rule(system: str) -> str:
    """Name of the expectation on the codes of a system."""
    return f"code_system_{system.lower()}"


@dataclass(frozen=True)
class RowRule:
    """An expectation on single rows.

    Attributes:
        name: of the expectation.
        quarantines: rows at fault are left out of the view. If so, too many of them block.
        reason: what is said of a row in quarantine.
        remedy: what a person can do.
    """

    name: str
    quarantines: bool
    reason: str
    remedy: str


ROW_RULES = {
    rule.name: rule
    for rule in (
        RowRule(
            "time_present",
            True,
            "the event has no time",
            "fill the date in the source",
        ),
        RowRule(
            "not_after_recorded",
            True,
            "the event lies after the day it was recorded",
            "check the source's dates and its clock (MIMIC's dates need 'vigil load mimic-iv')",
        ),
        RowRule(
            "not_before_birth",
            True,
            "the event lies before the birth recorded by then",
            "correct the birth or the event's date in the source",
        ),
        RowRule(
            "not_after_death",
            False,
            "the event lies after the day of death",
            "correct the death or the event's date in the source",
        ),
        RowRule(
            "plausible_birth",
            True,
            f"the birth lies more than {OLDEST_AGE} years before it was recorded",
            "correct the birth in the source",
        ),
        RowRule(
            "numeric_finite",
            True,
            "the number is infinite, not a number or too large",
            "correct the value in the source",
        ),
        RowRule(
            "unique_version",
            False,
            "the row was recorded twice at the same instant",
            "give each version of a row its own recorded_at",
        ),
        RowRule(
            "code_present",
            True,
            "the event has no code",
            "map the concept or fill the source value",
        ),
        *(
            RowRule(
                code_rule(name),
                True,
                f"the code has not the form of {name}",
                f"check the concept table's codes of {name} (diagnoses carry their dot)",
            )
            for name in CODE_SYSTEMS
        ),
    )
}


@dataclass(frozen=True)
class AggregateRule:
    """An expectation on a number: of a kind of record, or of the partition."""

    name: str
    severity: Severity
    per: Literal["kind", "partition"]
    remedy: str


FEED = "check whether the source's feed is complete"
CODING = "ask the source what changed in its coding"
MAPPING = "extend the concept table, or the mapping to it"
PLACING = "fill person, key and recorded_at of these rows in the source"
AGGREGATE_RULES = {
    rule.name: rule
    for rule in (
        AggregateRule("schema", "block", "partition", "extract the day again with this version of Vigil"),
        AggregateRule("recorded_by_as_of", "block", "partition", "check the source's dates"),
        AggregateRule("mostly_mapped", "block", "partition", MAPPING),
        AggregateRule("mostly_placed", "block", "kind", PLACING),
        AggregateRule("rows_placed", "warn", "kind", PLACING),
        AggregateRule("unmapped_codes", "warn", "kind", MAPPING),
        AggregateRule("volume", "warn", "partition", FEED),
        AggregateRule("volume_of_kind", "warn", "kind", FEED),
        AggregateRule("kind_present", "warn", "kind", FEED),
        AggregateRule("code_stability", "warn", "kind", CODING),
        AggregateRule("codes_new", "warn", "kind", CODING),
        AggregateRule("codes_vanished", "warn", "kind", CODING),
        AggregateRule("dictionary_share", "warn", "kind", MAPPING),
        AggregateRule("mapping_share", "warn", "kind", MAPPING),
    )
}
