"""The known process of the demo hospital: diseases, directed effects, drugs and labs, read from the CSV files here.

Rates are per year. Every hazard is ``base(age, sex) * exp(traits . loadings) * product of hazard ratios in force``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

HERE = Path(__file__).parent
START = date(2010, 1, 1)  # day 0 of the hospital's calendar
FIRST_TODAY = date(2024, 12, 31)
END = date(2026, 1, 31)
AGES = 111
DEATH = "death"
LATENT = "C25"  # begins unseen and is diagnosed months later: what precedes the diagnosis is its prodrome
TRAITS = ("frailty", "glycaemia", "heart", "kidney")
DEATH_RATE, DEATH_SLOPE, DEATH_F_RATIO = 3.6e-3, 0.06, 0.7  # at 60, without any disease; chosen
STROKE = ("I60", "I61", "I63")


@dataclass(frozen=True)
class Disease:
    """A disease and how it is coded.

    Attributes:
        course: ``chronic`` (once, coded again at later visits) or ``acute`` (may recur).
        recode: probability that a later visit codes it again.
        inpatient: probability that an onset is an admission.
        codes: per site (A, B), ICD-10-CM codes and their shares.
    """

    category: str
    name: str
    course: str
    recode: float
    inpatient: float
    codes: tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True)
class Effect:
    """A directed effect: from ``latency_days`` after the source, the target's hazard is ``hazard_ratio`` times.

    ``kind`` is ``effect`` (counted from the source's onset) or ``prodrome`` (from its unseen beginning).
    """

    kind: str
    source: str
    target: str
    hazard_ratio: float
    latency_days: int
    source_of_value: str


@dataclass(frozen=True)
class Drug:
    """A drug that ``share`` of the patients with a disease get, dispensed at a visit with probability ``refill``."""

    category: str
    atc: str
    name: str
    share: float
    refill: float


@dataclass(frozen=True)
class Lab:
    """A laboratory test. Values are ``base + traits + person + shifts + noise``, on the log scale where ``log``."""

    loinc: str
    name: str
    unit: str
    base: float
    person_sd: float
    noise_sd: float
    log: bool
    general: float
    loadings: tuple[float, float, float, float]
    low: float
    high: float
    digits: int


@dataclass(frozen=True)
class LabEffect:
    """A recorded disease lets a test be ordered with probability ``order``; the true disease shifts its value."""

    lab: int
    disease: int
    order: float
    shift: float


@dataclass(frozen=True)
class Process:
    """The process; ``D`` diseases, and death as target ``D``.

    Attributes:
        base: (AGES, 2, D + 1) yearly hazards by age and sex (0 male, 1 female).
        loadings: (D + 1, 4) of the traits on the log hazards.
    """

    diseases: tuple[Disease, ...]
    effects: tuple[Effect, ...]
    drugs: tuple[Drug, ...]
    labs: tuple[Lab, ...]
    lab_effects: tuple[LabEffect, ...]
    base: FloatArray
    loadings: FloatArray

    @property
    def death(self) -> int:
        """Column of death."""
        return len(self.diseases)

    def index(self, category: str) -> int:
        """Column of a category.

        Raises:
            KeyError: the process does not have it.
        """
        return self.columns[category]

    @property
    def columns(self) -> dict[str, int]:
        """Column by category, death included."""
        return {d.category: i for i, d in enumerate(self.diseases)} | {DEATH: self.death}

    @property
    def chronic(self) -> NDArray[np.bool_]:
        """(D,) which diseases stay."""
        return np.array([d.course == "chronic" for d in self.diseases])

    @property
    def lethal(self) -> NDArray[np.bool_]:
        """(D,) diseases of which few live long: they are not carried into the hospital from decades ago."""
        killers = {e.source for e in self.effects if e.target == DEATH and e.hazard_ratio >= 2}
        return np.array([d.category in killers for d in self.diseases])


def rows(name: str) -> list[dict[str, str]]:
    """The rows of one of the CSV files of this folder."""
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


@lru_cache(maxsize=1)
def load_process() -> Process:
    """Read the process from its files."""
    table = rows("diseases.csv")
    diseases = tuple(_disease(row) for row in table)
    columns = {d.category: i for i, d in enumerate(diseases)}
    labs = tuple(_lab(row) for row in rows("labs.csv"))
    numbers = {lab.loinc: i for i, lab in enumerate(labs)}
    return Process(
        diseases=diseases,
        effects=tuple(_effect(row) for row in rows("effects.csv")),
        drugs=tuple(
            Drug(r["category"], r["atc"], r["name"], float(r["share"]), float(r["refill"])) for r in rows("drugs.csv")
        ),
        labs=labs,
        lab_effects=tuple(
            LabEffect(numbers[r["loinc"]], columns[r["category"]], float(r["order"]), float(r["shift"]))
            for r in rows("lab_effects.csv")
        ),
        base=_base(table),
        loadings=_loadings(table),
    )


def day_of(moment: date) -> int:
    """Days since START."""
    return (moment - START).days


@lru_cache(maxsize=1)
def month_starts() -> IntArray:
    """First day of each calendar month from START to the month after END, as days since START."""
    months = (END.year - START.year) * 12 + END.month - START.month + 2
    return np.array([day_of(date(START.year + m // 12, m % 12 + 1, 1)) for m in range(months)])


def _disease(row: dict[str, str]) -> Disease:
    return Disease(
        row["category"],
        row["name"],
        row["course"],
        float(row["recode"]),
        float(row["inpatient"]),
        (_codes(row["codes_a"]), _codes(row["codes_b"])),
    )


def _codes(text: str) -> tuple[tuple[str, float], ...]:
    parts = [part.split(":") for part in text.split("|")]
    total = sum(float(weight) for _, weight in parts)
    return tuple((code, float(weight) / total) for code, weight in parts)


def _effect(row: dict[str, str]) -> Effect:
    ratio, latency = float(row["hazard_ratio"]), int(row["latency_days"])
    return Effect(row["kind"], row["source"], row["target"], ratio, latency, row["source_of_value"])


def _lab(row: dict[str, str]) -> Lab:
    number = {k: float(row[k]) for k in ("base", "person_sd", "noise_sd", "general", "low", "high")}
    return Lab(
        loinc=row["loinc"],
        name=row["name"],
        unit=row["unit"],
        log=row["scale"] == "log",
        loadings=(0.0, float(row["glycaemia"]), float(row["heart"]), float(row["kidney"])),
        digits=int(row["digits"]),
        **number,
    )


def _base(table: list[dict[str, str]]) -> FloatArray:
    """Yearly base hazards. ``exp``: rate at 60 times exp(a (age - 60)), flat from 92 on. ``bell``: rate at age a, sd b.

    ``f_ratio`` is female against male; ``inf`` means women alone, 0 men alone.
    """
    ages = np.arange(AGES)
    base = np.zeros((AGES, 2, len(table) + 1))
    for column, row in enumerate(table):
        a, b, rate = float(row["a"]), float(row["b"]), float(row["rate"]) / 1000
        shape = (
            np.exp(a * (np.minimum(ages, 92) - 60)) if row["shape"] == "exp" else np.exp(-(((ages - a) / b) ** 2) / 2)
        )
        inside = (ages >= int(row["min_age"])) & (ages <= int(row["max_age"]))
        ratio = float(row["f_ratio"])
        base[:, 0, column] = 0 if np.isinf(ratio) else rate * shape * inside
        base[:, 1, column] = rate * shape * inside * (1 if np.isinf(ratio) else ratio)
    gompertz = DEATH_RATE * np.exp(DEATH_SLOPE * (ages - 60))
    base[:, 0, -1], base[:, 1, -1] = gompertz, gompertz * DEATH_F_RATIO
    return base.astype(np.float32)


def _loadings(table: list[dict[str, str]]) -> FloatArray:
    """(D + 1, 4): frailty raises everything, the other traits what their columns say."""
    loadings = np.array([[0.15, float(r["glycaemia"]), float(r["heart"]), float(r["kidney"])] for r in table])
    return np.vstack([loadings, [0.2, 0, 0, 0]]).astype(np.float32)
