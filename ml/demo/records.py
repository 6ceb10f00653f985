"""What the hospital writes down of the lives: visits, diagnoses, drugs and laboratory values, with all their faults.

A disease is recorded at its onset, late, or never; chronic ones are coded again at later visits; some codes are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.demo.concepts import Codes
from ml.demo.process import END, FloatArray, IntArray, Process, day_of
from ml.demo.simulate import NEVER, Lives

# All chosen.
LATE_SHARE, NEVER_SHARE = 0.07, 0.04  # of chronic onsets
ACUTE_LATE, ACUTE_NEVER = 0.02, 0.03
LATE_DAYS = 540.0  # mean delay of what is recorded late
CARRIED_LATE, CARRIED_DAYS = 0.3, 200.0  # of what people bring along: share not coded at the first visit, mean delay
WRONG_CODE = 0.004
FEWER_LABS_AT_B = 0.55
THINNED_LABS, THINNED_DRUGS = 0.55, 0.7  # of the orders and refills of the CSV files
BLOCK = 20_000  # visits held as a visits x diseases matrix at once
INPATIENT, EMERGENCY, OUTPATIENT = 9201, 9203, 9202
AT_ONCE, LATE, UNSEEN = 0, 1, 2


@dataclass(frozen=True)
class Recording:
    """When each disease of n people becomes known to the hospital.

    Attributes:
        kind: (n, D) AT_ONCE, LATE or UNSEEN; drawn for every disease, whether it comes or not.
        since: (n, D) first day on which it is coded, NEVER where it is not.
    """

    kind: NDArray[np.int8]
    since: IntArray


@dataclass(frozen=True)
class Visits:
    """Visits, ordered by person and day: one a day at most."""

    person: IntArray
    day: IntArray
    minute: IntArray  # of the day
    nights: IntArray
    concept: IntArray  # 9201 inpatient, 9202 outpatient, 9203 emergency

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True)
class Items:
    """Rows of one kind: which visit, which code (position in Codes), and the value if it has one."""

    visit: IntArray
    code: IntArray
    value: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Records:
    """All that was written down of some lives."""

    lives: Lives
    recording: Recording
    visits: Visits
    conditions: Items
    drugs: Items
    labs: Items


def write_down(process: Process, codes: Codes, lives: Lives, rng: np.random.Generator) -> Records:
    """Record the lives."""
    recording = _recording(process, lives, rng)
    who, what, day = _first_codings(process, lives, recording, rng)
    visits, visit_of = _visits(process, lives, who, what, day, rng)
    again, drugs, labs = _at_visits(process, codes, lives, recording, visits, rng)
    coded_visit = np.concatenate([visit_of, again[0]])
    coded_disease = np.concatenate([what, again[1]])
    # A disease is coded once in a visit.
    _, kept = np.unique(coded_visit * process.death + coded_disease, return_index=True)
    conditions = _diagnoses(process, codes, lives, visits, coded_visit[kept], coded_disease[kept], rng)
    return Records(lives, recording, visits, conditions, drugs, labs)


def _recording(process: Process, lives: Lives, rng: np.random.Generator) -> Recording:
    entry, onset = lives.people.entry[:, None], lives.onset[:, :-1]
    draw = rng.random(onset.shape, dtype=np.float32)
    late = np.where(process.chronic, LATE_SHARE, ACUTE_LATE)
    never = np.where(process.chronic, NEVER_SHARE, ACUTE_NEVER)
    kind = np.where(draw < never, UNSEEN, np.where(draw < never + late, LATE, AT_ONCE)).astype(np.int8)
    carried = onset < entry
    delay = np.where(kind == LATE, LATE_DAYS, CARRIED_DAYS * carried * (rng.random(onset.shape) < CARRIED_LATE))
    since = np.maximum(onset, entry) + (delay * rng.standard_exponential(onset.shape, dtype=np.float32)).astype(
        np.int64
    )
    gone = (onset >= NEVER) | (kind == UNSEEN) | (carried & ~process.chronic)
    return Recording(kind, np.where(gone | (since > lives.gone[:, None]), NEVER, since))


def _first_codings(
    process: Process, lives: Lives, recording: Recording, rng: np.random.Generator
) -> tuple[IntArray, IntArray, IntArray]:
    """(people, diseases, days) of first codings and of the later episodes of acute diseases."""
    who, what = np.nonzero(recording.since <= day_of(END))
    seen = (rng.random(len(lives.episode_day)) >= ACUTE_NEVER) & (lives.episode_day <= day_of(END))
    seen &= lives.episode_day <= lives.gone[lives.episode_person]
    return (
        np.concatenate([who, lives.episode_person[seen]]),
        np.concatenate([what, lives.episode_disease[seen]]),
        np.concatenate([recording.since[who, what], lives.episode_day[seen]]),
    )


def _visits(
    process: Process, lives: Lives, who: IntArray, what: IntArray, day: IntArray, rng: np.random.Generator
) -> tuple[Visits, IntArray]:
    """The visits, and the visit of each first coding. Everybody comes on the day of entry."""
    span = day_of(END) + 2
    kept = (lives.visit_day >= lives.people.entry[lives.visit_person]) & (lives.visit_day <= day_of(END))
    kept &= lives.visit_day < lives.gone[lives.visit_person]
    coded = who * span + day
    entered = np.arange(len(lives.people)) * span + lives.people.entry
    entered = entered[lives.people.entry <= lives.gone]
    keys = np.unique(np.concatenate([coded, entered, lives.visit_person[kept] * span + lives.visit_day[kept]]))
    visit_of = np.searchsorted(keys, coded)
    chance = np.array([d.inpatient for d in process.diseases])
    admitted = np.zeros(len(keys), dtype=bool)
    np.logical_or.at(admitted, visit_of, rng.random(len(what)) < chance[what])
    urgent = np.zeros(len(keys), dtype=bool)
    np.logical_or.at(urgent, visit_of, ~process.chronic[what] & (rng.random(len(what)) < 0.25))
    concept = np.where(admitted, INPATIENT, np.where(urgent, EMERGENCY, OUTPATIENT))
    nights = np.where(admitted, 1 + rng.geometric(0.2, len(keys)), 0)
    person, first = np.divmod(keys, span)
    nights = np.minimum(nights, np.maximum(lives.gone[person] - first, 0))
    minute = rng.integers(7 * 60, 17 * 60, len(keys))
    return Visits(person, first, minute, nights, concept), visit_of


def _at_visits(
    process: Process, codes: Codes, lives: Lives, recording: Recording, visits: Visits, rng: np.random.Generator
) -> tuple[tuple[IntArray, IntArray], Items, Items]:
    """Codings again, drugs and labs: independent draws at every visit given what is known of the person."""
    n, column = len(lives.people), process.columns
    slot = np.array([column[drug.category] for drug in process.drugs])
    gets = rng.random((n, len(slot)), dtype=np.float32) < np.array([drug.share for drug in process.drugs])
    refill = np.array([drug.refill * THINNED_DRUGS for drug in process.drugs], dtype=np.float32)
    level = _person_levels(process, lives, rng)
    recode = np.array([d.recode for d in process.diseases], dtype=np.float32)
    found: list[list[Any]] = [[], [], [], [], [], [], []]
    for low in range(0, len(visits), BLOCK):
        person, day = visits.person[low : low + BLOCK], visits.day[low : low + BLOCK]
        known = recording.since[person] <= day[:, None]
        # What is acute is coded again only while it is fresh.
        fresh = known & (process.chronic | (recording.since[person] > day[:, None] - 60))
        visit, what = np.nonzero(fresh & (rng.random(fresh.shape, dtype=np.float32) < recode))
        dose, drug = np.nonzero(
            fresh[:, slot] & gets[person] & (rng.random((len(person), len(slot)), dtype=np.float32) < refill)
        )
        test, lab, value = _labs(process, lives, person, day, known, level, rng)
        for parts, part in zip(found, (visit + low, what, dose + low, drug, test + low, lab, value), strict=True):
            parts.append(part)
    visit, what, dose, drug, test, lab, value = (np.concatenate(parts) for parts in found)
    return (visit, what), Items(dose, codes.drugs[drug]), Items(test, codes.labs[lab], value)


def _person_levels(process: Process, lives: Lives, rng: np.random.Generator) -> FloatArray:
    """(n, labs) a person's own level of each test, before disease."""
    level = np.array([lab.base for lab in process.labs]) + rng.standard_normal(
        (len(lives.people), len(process.labs)), dtype=np.float32
    ) * np.array([lab.person_sd for lab in process.labs])
    for k in range(lives.people.traits.shape[1]):
        level += lives.people.traits[:, k, None] * np.array([lab.loadings[k] for lab in process.labs])
    return level.astype(np.float32)


def _labs(
    process: Process,
    lives: Lives,
    person: IntArray,
    day: IntArray,
    known: NDArray[np.bool_],
    level: FloatArray,
    rng: np.random.Generator,
) -> tuple[IntArray, IntArray, NDArray[np.float64]]:
    """(visit, lab, value) of a block of visits: known disease orders tests, true disease shifts their values."""
    spared = np.ones((len(person), len(process.labs)), dtype=np.float32)
    spared *= 1 - np.array([lab.general for lab in process.labs], dtype=np.float32)
    mean = level[person]
    for effect in process.lab_effects:
        spared[:, effect.lab] *= 1 - np.float32(effect.order) * known[:, effect.disease]
        mean[:, effect.lab] += np.float32(effect.shift) * (lives.onset[person, effect.disease] <= day)
    ordered = (1 - spared) * np.where(lives.people.site[person] == 1, FEWER_LABS_AT_B * THINNED_LABS, THINNED_LABS)[
        :, None
    ]
    visit, lab = np.nonzero(rng.random(spared.shape, dtype=np.float32) < ordered)
    noise = np.array([x.noise_sd for x in process.labs])[lab] * rng.standard_normal(len(lab))
    value = mean[visit, lab] + noise
    value = np.where(np.array([x.log for x in process.labs])[lab], np.exp(np.minimum(value, 12)), value)
    value = np.clip(value, np.array([x.low for x in process.labs])[lab], np.array([x.high for x in process.labs])[lab])
    scale = 10.0 ** np.array([x.digits for x in process.labs])[lab]
    return visit, lab, (np.round(value * scale) / scale).astype(np.float64)


def _diagnoses(
    process: Process,
    codes: Codes,
    lives: Lives,
    visits: Visits,
    visit: IntArray,
    what: IntArray,
    rng: np.random.Generator,
) -> Items:
    """Choose the code: mostly a person's own for the disease, by the site's habits; a few codes are plainly wrong."""
    person = visits.person[visit]
    own = rng.random((len(lives.people), process.death), dtype=np.float32)[person, what]
    draw = np.where(rng.random(len(what)) < 0.8, own, rng.random(len(what), dtype=np.float32))
    wrong = rng.random(len(what)) < WRONG_CODE
    what = np.where(wrong, rng.integers(0, process.death, len(what)), what)
    site = lives.people.site[person].astype(np.int64)
    place = (draw[:, None] > codes.shares[what, site]).sum(axis=1)
    return Items(visit, codes.categories[what, site, place])
