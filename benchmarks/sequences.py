"""Events become token stores: Vigil's packed sorts against the pandas way of CORE-BEHRT.

Run: python -m benchmarks.sequences [--rows 10000000] [--peer-rows 1000000] [--rounds 3]

Vigil starts from the polars frame that ``read_view`` gives for a shard and ends with a token store on disk, fsynced.
Value bins and the choice of the first and latest event of each token are part of it; the peer does neither.

The peer is written anew here, step by step as main_create_data.py of github.com/mikkelfo/CORE-BEHRT (corebehrt/data,
corebehrt/data_fixes; github.com/kirilklein/ehr2vec does the same) with its configs/create_data.yaml:
 1. concept_loader: rows of a batch of patients, ``drop_duplicates``, ``sort_values`` by patient and time;
 2. creators: AGE in years from a dict of birth dates, rounded; ABSPOS in hours from 2020-01-26; SEGMENT by factorising
    each patient's admissions in ``groupby().transform``; background rows BG_GENDER put in front; CONCEPT as str after
    each;
 3. featuremaker: one list per patient and feature, by ``groupby``;
 4. handle: per patient, ages outside -1 to 120 and missing values dropped entry by entry, segments renumbered;
 5. exclude: patients with fewer than two distinct codes;
 6. tokenizer: [SEP] after each segment, [CLS] in front, attention mask, codes to ids by a growing dict.
What it spends on reading its files, on saving the features, loading them again and saving the result (``torch.save``)
is left out, in its favour; so is the conversion from polars to pandas.

Before anything is timed, both must give equal codes, ages and order for a small hospital. ``ratio`` is the peer's time
per event over Vigil's, of the medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from ml.sequences.prepare import count_shard
from ml.sequences.store import StoreKey, write_store
from ml.sequences.tokens import tokenise
from ml.sequences.vocabulary import EMPTY, Vocabulary, grow, load_vocabulary

DAY = date(2024, 6, 30)
START = datetime(2020, 7, 1)
MINUTES = 1460 * 24 * 60  # four years of history, up to DAY
DIAGNOSES, MEASUREMENTS = 2000, 300
EVENTS_PER_PATIENT = 200
Features = dict[str, list[list[Any]]]
Patient = dict[str, list[Any]]


def make_view(events: int, seed: int = 1) -> pl.DataFrame:
    """A shard as ``read_view`` gives it: half diagnoses, half measurements with values, births and sexes."""
    draw, half, patients = np.random.default_rng(seed), events // 2, max(events // EVENTS_PER_PATIENT, 1)
    names = [f"ICD10CM//{chr(65 + n % 26)}{n // 26:02d}.{n % 10}" for n in range(DIAGNOSES)]
    names += [f"LOINC//{10000 + n}-{n % 10}" for n in range(MEASUREMENTS)]
    diagnosis = draw.random(half) ** 3 * DIAGNOSES
    measurement = DIAGNOSES + draw.random(events - half) ** 2 * MEASUREMENTS
    code = draw.permutation(np.concatenate((diagnosis, measurement)).astype(np.int32))
    value = np.where(code < DIAGNOSES, np.float32(np.nan), draw.random(events, np.float32) * 100)
    minute = pl.Series(draw.integers(0, MINUTES, events, np.int32))
    dated = pl.DataFrame(
        {
            "subject_id": draw.integers(1, patients + 1, events),
            "time": pl.select(pl.lit(START).cast(pl.Datetime("us")) + pl.duration(minutes=pl.lit(minute))).to_series(),
            "code": pl.Series(names, dtype=pl.String).gather(code),
            "numeric_value": pl.Series(value).fill_nan(None),
        }
    )
    people = pl.DataFrame({"subject_id": np.arange(1, patients + 1)})
    born = pl.lit(datetime(1930, 1, 1)).cast(pl.Datetime("us")) + pl.duration(days=pl.col("subject_id") * 37 % 25_000)
    sex = pl.when(pl.col("subject_id") % 2 == 0).then(pl.lit("GENDER//F")).otherwise(pl.lit("GENDER//M"))
    never, none = pl.lit(None, dtype=pl.Datetime("us")), pl.lit(None, dtype=pl.Float32)
    births = people.select("subject_id", time=born, code=pl.lit("MEDS_BIRTH"), numeric_value=none)
    sexes = people.select("subject_id", time=never, code=sex, numeric_value=none)
    return pl.concat([dated, births, sexes])


@dataclass(frozen=True)
class Formatted:
    """The peer's input: events (PID, CONCEPT, TIMESTAMP, ADMISSION_ID) and people (PID, BIRTHDATE, GENDER)."""

    concepts: pd.DataFrame
    people: pd.DataFrame


def formatted(view: pl.DataFrame) -> Formatted:
    """The same events in the peer's format; each day with an event is an admission."""
    dated = view.filter(pl.col("time").is_not_null() & (pl.col("code") != "MEDS_BIRTH"))
    concepts = dated.select(
        PID="subject_id", CONCEPT="code", TIMESTAMP="time", ADMISSION_ID=pl.col("time").dt.epoch("d")
    )
    births = view.filter(pl.col("code") == "MEDS_BIRTH").select(PID="subject_id", BIRTHDATE="time")
    sexes = view.filter(pl.col("code").str.starts_with("GENDER//"))
    people = births.join(sexes.select(PID="subject_id", GENDER=pl.col("code").str.slice(8)), on="PID")
    return Formatted(concepts.to_pandas(), people.to_pandas())


ORIGIN = datetime(2020, 1, 26)


def hours_from_origin(times: pd.Series) -> pd.Series:
    return (times - ORIGIN).dt.total_seconds() / 60 / 60


def load(source: Formatted) -> pd.DataFrame:
    """Step 1, all patients in one batch."""
    rows = source.concepts[source.concepts["PID"].isin(source.people["PID"].unique())]
    return rows.drop_duplicates().sort_values(by=["PID", "TIMESTAMP"])


def create(concepts: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Step 2."""
    births = dict(zip(people["PID"], people["BIRTHDATE"], strict=True))
    concepts["AGE"] = ((concepts["TIMESTAMP"] - concepts["PID"].map(births)).dt.days / 365.25).round(2)
    concepts["CONCEPT"] = concepts["CONCEPT"].astype(str)
    concepts["ABSPOS"] = hours_from_origin(concepts["TIMESTAMP"])
    concepts["CONCEPT"] = concepts["CONCEPT"].astype(str)
    by_patient = concepts.groupby("PID")["ADMISSION_ID"]
    concepts["SEGMENT"] = by_patient.transform(lambda admissions: pd.factorize(admissions)[0] + 1)
    concepts["CONCEPT"] = concepts["CONCEPT"].astype(str)
    background = pd.DataFrame(
        {
            "PID": people["PID"].tolist(),
            "CONCEPT": ("BG_GENDER_" + people["GENDER"].astype(str)).tolist(),
            "SEGMENT": 0,
            "AGE": -1,
            "ABSPOS": hours_from_origin(people["BIRTHDATE"]).to_list(),
        }
    )
    together = pd.concat([background, concepts])
    together["CONCEPT"] = together["CONCEPT"].astype(str)
    return together


def lists_of(concepts: pd.DataFrame) -> tuple[Features, list[Any]]:
    """Step 3."""
    features: Features = {"concept": [], "age": [], "abspos": [], "segment": []}
    people: list[Any] = []
    for who, rows in concepts.groupby("PID", sort=False):
        people.append(who)
        for name, values in features.items():
            values.append(rows[name.upper()].tolist())
    return features, people


def each_patient(features: Features) -> Iterator[Patient]:
    for number in range(len(features["concept"])):
        yield {name: values[number] for name, values in features.items()}


def handle(features: Features) -> Features:
    """Step 4."""
    handled: Features = {name: [] for name in features}
    for patient in each_patient(features):
        right = {i for i, age in enumerate(patient["age"]) if -1 <= age <= 120}
        patient = {name: [values[i] for i in right] for name, values in patient.items()}
        missing = {i for values in patient.values() for i, value in enumerate(values) if pd.isna(value)}
        patient = {name: [v for i, v in enumerate(values) if i not in missing] for name, values in patient.items()}
        number = {segment: i for i, segment in enumerate(sorted(set(patient["segment"])))}
        patient["segment"] = [number[segment] for segment in patient["segment"]]
        for name, values in patient.items():
            handled[name].append(values)
    return handled


def exclude(features: Features, people: list[Any]) -> tuple[Features, list[Any]]:
    """Step 5."""
    codes = [{code for code in concepts if not code.startswith("[")} for concepts in features["concept"]]
    kept = [i for i, distinct in enumerate(codes) if len(distinct) >= 2]
    return {name: [values[i] for i in kept] for name, values in features.items()}, [people[i] for i in kept]


def encode(features: Features) -> tuple[Features, dict[str, int]]:
    """Step 6."""
    vocabulary = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "[MASK]": 4}
    data: Features = {name: [] for name in [*features, "attention_mask"]}
    for patient in each_patient(features):
        segments = [*patient["segment"], None]
        for name, values in patient.items():
            marked = []
            for i, value in enumerate(values):
                marked.append(value)
                if segments[i] != segments[i + 1]:
                    marked.append("[SEP]" if name == "concept" else value)
            patient[name] = ["[CLS]" if name == "concept" else marked[0], *marked]
        patient["attention_mask"] = [1] * len(patient["concept"])
        for concept in patient["concept"]:
            if concept not in vocabulary:
                vocabulary[concept] = len(vocabulary)
        patient["concept"] = [vocabulary.get(concept, vocabulary["[UNK]"]) for concept in patient["concept"]]
        for name, values in patient.items():
            data[name].append(values)
    return data, vocabulary


@dataclass(frozen=True)
class Tokenised:
    """What the peer ends with."""

    people: list[Any]
    features: Features
    vocabulary: dict[str, int]


def corebehrt(source: Formatted) -> Tokenised:
    """All steps."""
    features, people = lists_of(create(load(source), source.people))
    features, people = exclude(handle(features), people)
    return Tokenised(people, *encode(features))


def vigil(view: pl.DataFrame, vocabulary: Vocabulary, folder: Path) -> None:
    """A finished token store."""
    write_store(folder / "store", tokenise(view, DAY, vocabulary), StoreKey("benchmark", str(DAY), 0, 1, "benchmark"))


def check_equal_work(events: int) -> int:
    """Compare codes, ages and order of both for a small hospital. The peer's events lose what lies between the first
    and the latest of a code, which Vigil leaves out, and those of one minute are ordered by id; [SEP] is left out.

    Returns:
        Tokens compared.
    """
    view = make_view(events, seed=2)
    vocabulary = grow(EMPTY, count_shard(view, "benchmark").events, {})
    ours, theirs = tokenise(view, DAY, vocabulary), corebehrt(formatted(view))
    assert sorted(theirs.people) == ours.subjects.tolist(), "people differ"
    names = {number: name for name, number in theirs.vocabulary.items()}
    for who, patient in zip(theirs.people, each_patient(theirs.features), strict=True):
        codes = [names[number] for number in patient["concept"]]
        row = int(np.searchsorted(ours.subjects, who))
        mine = slice(ours.offsets[row] + 2, ours.offsets[row + 1])
        head = [vocabulary.tokens[token] for token in ours.tokens[mine.start - 2 : mine.start]]
        assert head == ["[CLS]", codes[1].replace("BG_GENDER_", "GENDER//")], "sexes differ"
        expected = first_and_latest_of(codes, patient, vocabulary)
        assert ours.tokens[mine].tolist() == [token for _, token, _ in expected], "codes or their order differ"
        years = [round(age / 365.25, 2) for age in ours.ages[mine].tolist()]
        assert np.allclose(years, [age for _, _, age in expected], atol=1e-9), "ages differ"
    return int(ours.offsets[-1])


def first_and_latest_of(codes: list[str], patient: Patient, vocabulary: Vocabulary) -> list[tuple[int, int, float]]:
    """Minute, Vigil's token and age in years of what of the peer's patient is in Vigil's store."""
    rows = [
        (round(hours * 60), vocabulary.lookup(code), age)
        for code, hours, age in zip(codes, patient["abspos"], patient["age"], strict=True)
        if not code.startswith(("[", "BG_"))
    ]
    minutes: dict[int, list[int]] = {}
    for minute, token, _ in rows:
        minutes.setdefault(token, []).append(minute)
    return sorted({row for row in rows if row[0] in (min(minutes[row[1]]), max(minutes[row[1]]))})


@dataclass(frozen=True)
class Cost:
    """Of one run: seconds of the clock and of the processor."""

    wall: float
    cpu: float


def cost_of(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def own_memory() -> int:
    """Bytes of memory that are this process's own, no mapped files (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def working_memory(view: pl.DataFrame, vocabulary: Vocabulary, folder: Path) -> int:
    """Bytes that Vigil takes at most beside the view, in a process of its own (Linux). An upper bound: buffers that
    reading the view left behind count too."""
    view.write_ipc(folder / "view.arrow", compression="uncompressed")
    vocabulary.save(folder / "vocabulary.json")
    command = [sys.executable, "-m", "benchmarks.sequences", "--child", str(folder)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def child(folder: Path) -> None:
    """Print what `working_memory` gives."""
    vocabulary = load_vocabulary(folder / "vocabulary.json")
    vigil(make_view(100_000), vocabulary, folder)  # what is loaded once is not counted
    before, marks, over = own_memory(), [0], threading.Event()
    view = pl.read_ipc(folder / "view.arrow", memory_map=False)

    def watch() -> None:
        while not over.wait(0.002):
            marks.append(own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    vigil(view, vocabulary, folder)
    over.set()
    watcher.join()
    print(max(marks) - before - view.estimated_size())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="Vigil's events")
    parser.add_argument("--peer-rows", type=int, default=1_000_000, help="the peer's events")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    print(f"equal codes, ages and order: {check_equal_work(20_000):,} tokens compared")
    source = formatted(make_view(options.peer_rows))
    view = make_view(options.rows)
    counts = count_shard(make_view(min(options.rows, 1_000_000)), "benchmark")
    vocabulary = grow(EMPTY, counts.events, counts.values)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as name:
        folder = Path(name)
        memory = working_memory(view, vocabulary, folder)
        stored = sum(file.stat().st_size for file in (folder / "store").iterdir())
        for _ in range(options.rounds):
            theirs.append(cost_of(lambda: corebehrt(source)))
            ours.append(cost_of(lambda: vigil(view, vocabulary, folder)))
    report(options.rows, options.peer_rows, ours, theirs, vocabulary.size)
    print(f"\nVigil, bytes per event: view {view.estimated_size() / options.rows:.1f}, ", end="")
    print(f"beside it at most {memory / options.rows:.1f}, store {stored / options.rows:.1f}")
    ratio = per_event(theirs, options.peer_rows, "wall") / per_event(ours, options.rows, "wall")
    print(
        f"\nratio={ratio:.1f} peer=corebehrt-pandas rows={options.rows} peer_rows={options.peer_rows} "
        f"events_per_second={1 / per_event(ours, options.rows, 'wall'):.0f}"
    )


def per_event(costs: list[Cost], events: int, clock: str) -> float:
    """Median seconds per event."""
    return statistics.median(getattr(cost, clock) for cost in costs) / events


def report(rows: int, peer_rows: int, ours: list[Cost], theirs: list[Cost], vocabulary: int) -> None:
    print(f"medians of {len(ours)} rounds; vocabulary of {vocabulary:,} tokens; pandas {pd.__version__}\n")
    print(f"{'':20}{'events':>12}{'seconds':>10}{'events/s':>12}{'cpu ns/event':>14}")
    for name, events, costs in (("vigil", rows, ours), ("corebehrt-pandas", peer_rows, theirs)):
        wall, cpu = (per_event(costs, events, clock) for clock in ("wall", "cpu"))
        print(f"{name:20}{events:12,}{wall * events:10.2f}{1 / wall:12,.0f}{cpu * 1e9:14,.0f}")


if __name__ == "__main__":
    main()
