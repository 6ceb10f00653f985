"""The demo hospital as a stream of chunks of people: same seed, same rows, whatever the process or machine load."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from ml.demo.concepts import load_codes
from ml.demo.people import SITES, sample_people
from ml.demo.process import DEATH, END, HERE, LATENT, START, TRAITS, IntArray, Process, day_of, load_process
from ml.demo.records import Records, write_down
from ml.demo.simulate import NEVER, simulate
from ml.demo.tables import PATIENT_TABLES, Tables, make_tables

Preset = Literal["general", "pancreas"]
CHUNK = 5_000  # people simulated at once: bounds the memory, and numbers the random streams
ENRICHED_AGE, ENRICHED_BY = 45, 50.0  # preset pancreas
FILES = ("diseases.csv", "effects.csv", "drugs.csv", "labs.csv", "lab_effects.csv")
RECORDING = ("at once", "late", "unseen")


@dataclass(frozen=True)
class Order:
    """Which hospital: its size, preset and seed."""

    patients: int
    preset: Preset
    seed: int

    @property
    def identity(self) -> str:
        """One line that two equal hospitals share; it names the version of the process, too."""
        digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()[:8]
        return f"vigil demo {digest} patients={self.patients} preset={self.preset} seed={self.seed}"


@dataclass(frozen=True)
class Chunk:
    """Some of the people: rows for the EHR, and their truth."""

    ehr: Tables
    people: pl.DataFrame
    onsets: pl.DataFrame


def process_of(preset: Preset) -> Process:
    """The process of a preset.

    ``pancreas`` multiplies the base hazard of pancreatic cancer's unseen beginning by 50 and leaves every hazard
    ratio as it is: for a rare disease much the same as drawing its cases 50 times as often.
    """
    process = load_process()
    if preset == "general":
        return process
    base = process.base.copy()
    base[:, :, process.index(LATENT)] *= np.float32(ENRICHED_BY)
    return replace(process, base=base)


def sampling(order: Order) -> dict[str, str]:
    """How the people were drawn, in words and numbers."""
    if order.preset == "general":
        return {"people": "every person that the hospital cares for", "least_age_at_entry": "0"}
    return {
        "people": f"people of {ENRICHED_AGE} and older at entry",
        "least_age_at_entry": str(ENRICHED_AGE),
        "enriched": f"base hazard of {LATENT} times {ENRICHED_BY:g}; hazard ratios unchanged",
    }


def generate(order: Order) -> Iterator[Chunk]:
    """Yield the hospital in chunks of at most 5,000 people; memory does not grow with its size."""
    process, codes = process_of(order.preset), load_codes()
    least_age = ENRICHED_AGE if order.preset == "pancreas" else 0
    for number, first in enumerate(range(0, order.patients, CHUNK)):
        seeds = np.random.SeedSequence([order.seed, number, least_age])
        rng = np.random.Generator(np.random.SFC64(seeds))
        people = sample_people(min(CHUNK, order.patients - first), rng, least_age=least_age)
        records = write_down(process, codes, simulate(process, people, rng), rng)
        ehr = make_tables(process, codes, records, first + 1, number, rng)
        yield Chunk(ehr, _people(records, first + 1), _onsets(process, records, first + 1))


def digest(order: Order) -> str:
    """SHA-256 over all rows and all truth of a hospital."""
    total = hashlib.sha256()
    for chunk in generate(order):
        for frame in (*(chunk.ehr[name] for name in PATIENT_TABLES), chunk.people, chunk.onsets):
            total.update(frame.write_csv().encode())
    return total.hexdigest()


def _dates(days: IntArray) -> pl.Series:
    """Days since START as dates; beyond the calendar: null."""
    absent = days >= NEVER
    values = np.datetime64(START.isoformat(), "D") + np.where(absent, 0, days).astype("timedelta64[D]")
    return pl.select(pl.when(pl.Series(absent)).then(None).otherwise(pl.Series(values))).to_series()


def _people(records: Records, first_person: int) -> pl.DataFrame:
    people = records.lives.people
    return pl.DataFrame(
        {
            "person_id": np.arange(len(people)) + first_person,
            "site": pl.Series(SITES).gather(people.site.astype(np.int64)),
            "sex": pl.Series(("M", "F")).gather(people.sex.astype(np.int64)),
            "born": _dates(people.born),
            "entry": _dates(people.entry),
            "leaves": _dates(np.where(people.leave > day_of(END), NEVER, people.leave)),
            **{name: people.traits[:, k] for k, name in enumerate(TRAITS)},
        }
    )


def _onsets(process: Process, records: Records, first_person: int) -> pl.DataFrame:
    lives, recording = records.lives, records.recording
    who, what = np.nonzero(lives.began < NEVER)
    names = [d.category for d in process.diseases] + [DEATH]
    dead = what == process.death
    disease = np.where(dead, 0, what)
    since = np.where(dead, NEVER, recording.since[who, disease])
    return pl.DataFrame(
        {
            "person_id": who + first_person,
            "category": pl.Series(names).gather(what),
            "began": _dates(lives.began[who, what]),
            "onset": _dates(lives.onset[who, what]),
            "recording": pl.Series(RECORDING).gather(np.where(dead, 0, recording.kind[who, disease]).astype(np.int64)),
            "recorded_from": _dates(since),
        }
    )
