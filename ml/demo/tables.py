"""Records → rows of the OMOP CDM tables, each with the day it became known, late rows, corrections and deletions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml.demo.concepts import FIRST_CONCEPT, Codes
from ml.demo.process import DEATH, END, START, IntArray, Process, day_of
from ml.demo.records import EMERGENCY, INPATIENT, Items, Records
from ml.demo.simulate import NEVER

# All chosen.
LATE, CORRECTED, DELETED = 0.03, 0.01, 0.005
LATE_FROM, LATE_MEAN = 14, 45.0  # days
LATE_DEATH, LATE_DEATH_MEAN = 0.15, 50.0
EHR_TYPE = 32817  # OMOP: the row comes from an EHR
CHUNK_IDS = 100_000_000  # row ids of a chunk of people start at its number times this
PATIENT_TABLES = (
    "person",
    "observation_period",
    "visit_occurrence",
    "condition_occurrence",
    "drug_exposure",
    "measurement",
    "death",
)
Tables = dict[str, pl.DataFrame]


@dataclass(frozen=True)
class Stamps:
    """Versions of rows. ``row``: the row's position; a version may be ``wrong`` (to be corrected) or ``removed``."""

    row: IntArray
    recorded: IntArray  # seconds since START
    wrong: NDArray[np.bool_]
    removed: NDArray[np.bool_]


def make_tables(
    process: Process, codes: Codes, records: Records, first_person: int, chunk: int, rng: np.random.Generator
) -> Tables:
    """The rows of a chunk of people, numbered from ``first_person``; row ids are unique over chunks."""
    visits = records.visits
    ids = chunk * CHUNK_IDS
    start = visits.day * 86_400 + visits.minute * 60
    known = (visits.day + visits.nights) * 86_400 + rng.integers(19 * 3600, 24 * 3600, len(visits))
    known += rng.choice(4, len(visits), p=(0.55, 0.25, 0.12, 0.08)) * 86_400
    tables = {
        "person": _person(records, first_person),
        "observation_period": _observation_period(records, first_person, rng),
        "visit_occurrence": _visit(records, first_person, ids, start, known, rng),
        "death": _death(process, codes, records, first_person, rng),
    }
    base = _Base(first_person, ids, start, known, visits.person)
    tables["condition_occurrence"] = _conditions(codes, records.conditions, base, rng)
    tables["drug_exposure"] = _drugs(codes, records.drugs, base, rng)
    tables["measurement"] = _measurements(process, codes, records.labs, base, rng)
    return tables


@dataclass(frozen=True)
class _Base:
    first_person: int
    ids: int
    start: IntArray
    known: IntArray
    person: IntArray

    def common(self, visit: IntArray, stamps: Stamps) -> dict[str, pl.Series]:
        """Columns that every clinical table shares, in one order of rows."""
        visit = visit[stamps.row]
        return {
            "person_id": pl.Series(self.person[visit] + self.first_person),
            "start": _moment(self.start[visit]),
            "visit_occurrence_id": pl.Series(visit + self.ids),
            "recorded_at": _moment(stamps.recorded),
            "removed": pl.Series(stamps.removed),
        }


def _moment(seconds: IntArray) -> pl.Series:
    """Seconds since START as timestamps."""
    origin = np.datetime64(START.isoformat(), "us")
    return pl.Series(origin + seconds.astype("timedelta64[s]").astype("timedelta64[us]"))


def _stamps(known: IntArray, rng: np.random.Generator) -> Stamps:
    """Versions of rows that are known from ``known`` on: some later, some first wrong, some taken back."""
    n = len(known)
    late = rng.random(n) < LATE
    first = known + late * (LATE_FROM + rng.exponential(LATE_MEAN, n)).astype(np.int64) * 86_400
    corrected = np.flatnonzero(rng.random(n) < CORRECTED)
    deleted = np.flatnonzero(rng.random(n) < DELETED)
    righted = first[corrected] + rng.integers(3, 120, len(corrected)) * 86_400
    last = first.copy()
    last[corrected] = righted
    wrong = np.zeros(n, dtype=bool)
    wrong[corrected] = True
    extra = len(corrected) + len(deleted)
    return Stamps(
        np.concatenate([np.arange(n), corrected, deleted]),
        np.concatenate([first, righted, last[deleted] + rng.integers(5, 200, len(deleted)) * 86_400]),
        np.concatenate([wrong, np.zeros(extra, dtype=bool)]),
        np.concatenate([np.zeros(n + len(corrected), dtype=bool), np.ones(len(deleted), dtype=bool)]),
    )


def _conditions(codes: Codes, items: Items, base: _Base, rng: np.random.Generator) -> pl.DataFrame:
    stamps = _stamps(base.known[items.visit], rng)
    code = items.code[stamps.row]
    # The first version of a corrected diagnosis names another code of the vocabulary.
    diagnoses = np.unique(codes.categories)
    code[stamps.wrong] = rng.choice(diagnoses, int(stamps.wrong.sum()))
    shared = base.common(items.visit, stamps)
    start = shared.pop("start")
    return pl.DataFrame(
        {
            "condition_occurrence_id": stamps.row + base.ids,
            "condition_concept_id": code + FIRST_CONCEPT,
            "condition_start_date": start.dt.date(),
            "condition_start_datetime": start,
            "condition_type_concept_id": np.full(len(code), EHR_TYPE),
            "condition_source_value": pl.Series(codes.codes).gather(code),
            "condition_source_concept_id": code + FIRST_CONCEPT,
            **shared,
        }
    )


def _drugs(codes: Codes, items: Items, base: _Base, rng: np.random.Generator) -> pl.DataFrame:
    stamps = _stamps(base.known[items.visit], rng)
    days = rng.choice((14, 30, 90), len(items.visit), p=(0.15, 0.35, 0.5))[stamps.row]
    days[stamps.wrong] = 300
    code = items.code[stamps.row]
    shared = base.common(items.visit, stamps)
    start = shared.pop("start")
    return pl.DataFrame(
        {
            "drug_exposure_id": stamps.row + base.ids,
            "drug_concept_id": code + FIRST_CONCEPT,
            "drug_exposure_start_date": start.dt.date(),
            "drug_exposure_start_datetime": start,
            "drug_exposure_end_date": (start + pl.Series(days * 86_400_000_000).cast(pl.Duration("us"))).dt.date(),
            "drug_type_concept_id": np.full(len(code), EHR_TYPE),
            "quantity": days.astype(np.float64),
            "days_supply": days,
            "drug_source_value": pl.Series(codes.codes).gather(code),
            "drug_source_concept_id": code + FIRST_CONCEPT,
            **shared,
        }
    )


def _measurements(process: Process, codes: Codes, items: Items, base: _Base, rng: np.random.Generator) -> pl.DataFrame:
    if items.value is None:
        raise ValueError("measurements have values")
    stamps = _stamps(base.known[items.visit], rng)
    code = items.code[stamps.row]
    value = items.value[stamps.row].astype(np.float64)
    value[stamps.wrong] = np.round(value[stamps.wrong] * 10, 3)  # a slipped decimal point
    units = np.full(len(codes.codes), "", dtype=object)
    units[codes.labs] = [lab.unit for lab in process.labs]
    shared = base.common(items.visit, stamps)
    start = shared.pop("start")
    return pl.DataFrame(
        {
            "measurement_id": stamps.row + base.ids,
            "measurement_concept_id": code + FIRST_CONCEPT,
            "measurement_date": start.dt.date(),
            "measurement_datetime": start,
            "measurement_type_concept_id": np.full(len(code), EHR_TYPE),
            "value_as_number": value,
            "measurement_source_value": pl.Series(codes.codes).gather(code),
            "measurement_source_concept_id": code + FIRST_CONCEPT,
            "unit_source_value": pl.Series(units.tolist()).gather(code),
            **shared,
        }
    )


def _visit(
    records: Records, first_person: int, ids: int, start: IntArray, known: IntArray, rng: np.random.Generator
) -> pl.DataFrame:
    visits = records.visits
    stamps = _stamps(known, rng)
    row = stamps.row
    concept = np.where(stamps.wrong, EMERGENCY, visits.concept[row])
    words = {INPATIENT: "inpatient", EMERGENCY: "emergency"}
    begin = _moment(start[row])
    end = _moment(start[row] + visits.nights[row] * 86_400 + 3_600 * (visits.nights[row] == 0))
    return pl.DataFrame(
        {
            "visit_occurrence_id": row + ids,
            "person_id": visits.person[row] + first_person,
            "visit_concept_id": concept,
            "visit_start_date": begin.dt.date(),
            "visit_start_datetime": begin,
            "visit_end_date": end.dt.date(),
            "visit_end_datetime": end,
            "visit_type_concept_id": np.full(len(row), EHR_TYPE),
            "care_site_id": records.lives.people.site[visits.person[row]].astype(np.int64) + 1,
            "visit_source_value": pl.Series(concept).replace_strict(
                words, default="outpatient", return_dtype=pl.String
            ),
            "recorded_at": _moment(stamps.recorded),
            "removed": stamps.removed,
        }
    )


def _person(records: Records, first_person: int) -> pl.DataFrame:
    people = records.lives.people
    born = _moment(people.born * 86_400)
    number = np.arange(len(people)) + first_person
    female = people.sex == 1
    return pl.DataFrame(
        {
            "person_id": number,
            "gender_concept_id": np.where(female, 8532, 8507),
            "year_of_birth": born.dt.year(),
            "month_of_birth": born.dt.month(),
            "day_of_birth": born.dt.day(),
            "birth_datetime": born,
            "race_concept_id": np.zeros(len(people), dtype=np.int64),
            "ethnicity_concept_id": np.zeros(len(people), dtype=np.int64),
            "location_id": people.site.astype(np.int64) + 1,
            "care_site_id": people.site.astype(np.int64) + 1,
            "person_source_value": pl.Series(number).cast(pl.String),
            "gender_source_value": np.where(female, "F", "M"),
            # Registered on the morning of the first visit, before anything else is known.
            "recorded_at": _moment(people.entry * 86_400 + 6 * 3_600),
            "removed": np.zeros(len(people), dtype=bool),
        }
    )


def _observation_period(records: Records, first_person: int, rng: np.random.Generator) -> pl.DataFrame:
    """Open to the end of the calendar at first; a second version, 60 to 120 days after one left or died, closes it."""
    lives = records.lives
    entry, end = lives.people.entry, day_of(END)
    closed = np.flatnonzero(lives.gone <= end)
    row = np.concatenate([np.arange(len(entry)), closed])
    last = np.concatenate([np.full(len(entry), end), lives.gone[closed]])
    known = np.concatenate([entry, lives.gone[closed] + rng.integers(60, 120, len(closed))])
    return pl.DataFrame(
        {
            "observation_period_id": row + first_person,
            "person_id": row + first_person,
            "observation_period_start_date": _moment(entry[row] * 86_400).dt.date(),
            "observation_period_end_date": _moment(last * 86_400).dt.date(),
            "period_type_concept_id": np.full(len(row), EHR_TYPE),
            "recorded_at": _moment(known * 86_400 + 6 * 3_600),
            "removed": np.zeros(len(row), dtype=bool),
        }
    )


def _death(
    process: Process, codes: Codes, records: Records, first_person: int, rng: np.random.Generator
) -> pl.DataFrame:
    """Deaths in care. The cause is the most lethal disease the person truly had, or empty."""
    lives = records.lives
    day = lives.onset[:, -1]
    who = np.flatnonzero((day <= lives.people.leave) & (day < NEVER))
    ratio = np.zeros(process.death)
    for effect in process.effects:
        if effect.target == DEATH and not effect.source.startswith("R"):  # a symptom is no cause
            ratio[process.index(effect.source)] = effect.hazard_ratio
    weight = ratio * (lives.onset[who, :-1] <= day[who, None])
    worst = weight.argmax(axis=1) if len(who) else np.zeros(0, dtype=np.int64)
    code = codes.categories[worst, lives.people.site[who].astype(np.int64), 0]
    none = weight.max(axis=1, initial=0) == 0
    delay = rng.integers(0, 8, len(who))
    late = rng.random(len(who)) < LATE_DEATH
    delay = np.where(late, 8 + rng.exponential(LATE_DEATH_MEAN, len(who)).astype(np.int64), delay)
    moment = day[who] * 86_400 + rng.integers(19 * 3_600, 86_400, len(who))  # after the visits of the day
    frame = pl.DataFrame(
        {
            "person_id": who + first_person,
            "death_date": _moment(moment).dt.date(),
            "death_datetime": _moment(moment),
            "death_type_concept_id": np.full(len(who), EHR_TYPE),
            "cause_concept_id": code + FIRST_CONCEPT,
            "cause_source_value": pl.Series(codes.codes).gather(code),
            "cause_source_concept_id": code + FIRST_CONCEPT,
            "recorded_at": _moment((day[who] + 1 + delay) * 86_400 + rng.integers(0, 86_400, len(who))),
            "removed": np.zeros(len(who), dtype=bool),
        }
    )
    causes = ("cause_concept_id", "cause_source_value", "cause_source_concept_id")
    return frame.with_columns(pl.when(pl.Series(none)).then(None).otherwise(pl.col(c)).alias(c) for c in causes)
