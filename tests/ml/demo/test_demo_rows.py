"""The generated rows: reproducible, plausible in time, faulty in the ways that are stated."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml.demo.generate import Chunk, Order, digest, generate, process_of
from ml.demo.people import sample_people
from ml.demo.process import END, FIRST_TODAY, day_of
from ml.demo.simulate import Lives, simulate
from ml.demo.tables import PATIENT_TABLES

START_OF = {
    "visit_occurrence": "visit_start_datetime",
    "condition_occurrence": "condition_start_datetime",
    "drug_exposure": "drug_exposure_start_datetime",
    "measurement": "measurement_datetime",
    "death": "death_datetime",
}
ID_OF = {name: f"{name}_id" for name in PATIENT_TABLES} | {"death": "person_id"}
SCRIPT = """
from ml.demo.generate import Order, digest
print(digest(Order(300, "general", 5)))
"""


def test_the_same_seed_gives_the_same_rows_in_another_process_and_another_seed_does_not() -> None:
    again = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout.strip()
    assert digest(Order(300, "general", 5)) == again
    assert digest(Order(300, "general", 6)) != again


def test_people_come_in_chunks_with_running_numbers_and_unique_row_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml.demo.generate.CHUNK", 200)
    chunks = list(generate(Order(500, "general", 1)))
    assert pl.concat([c.people["person_id"] for c in chunks]).to_list() == list(range(1, 501))
    visits = pl.concat([c.ehr["visit_occurrence"] for c in chunks]).filter(~pl.col("removed"))
    assert visits.unique(["visit_occurrence_id", "recorded_at"]).height == visits.height
    assert visits.group_by("visit_occurrence_id").agg(pl.col("person_id").n_unique())["person_id"].max() == 1


def test_nothing_is_recorded_before_it_happens(small: Chunk) -> None:
    for name, start in START_OF.items():
        assert (small.ehr[name]["recorded_at"] >= small.ehr[name][start]).all(), name


def test_a_version_of_a_row_has_its_own_recorded_at(small: Chunk) -> None:
    for name, key in ID_OF.items():
        frame = small.ehr[name]
        assert frame.unique([key, "recorded_at"]).height == frame.height, name


def test_rows_are_late_corrected_and_taken_back_about_as_often_as_stated(small: Chunk) -> None:
    rows = small.ehr["condition_occurrence"]
    versions = rows.sort("recorded_at").group_by("condition_occurrence_id", maintain_order=True)
    first = versions.first()
    delay = first["recorded_at"] - first["condition_start_datetime"]
    assert 0.018 < (delay > timedelta(days=24)).mean() < 0.05
    assert 0.003 < rows["removed"].sum() / first.height < 0.008
    kept = rows.filter(~pl.col("removed")).group_by("condition_occurrence_id").len()
    assert 0.007 < (kept["len"] > 1).mean() < 0.014


def test_a_correction_changes_the_content_and_keeps_the_day(small: Chunk) -> None:
    rows = small.ehr["measurement"].filter(~pl.col("removed")).sort("recorded_at")
    grouped = rows.group_by("measurement_id").agg(pl.col("value_as_number"), pl.col("measurement_date").n_unique())
    corrected = grouped.filter(pl.col("value_as_number").list.len() > 1)
    assert corrected.height > 50
    assert (corrected["measurement_date"] == 1).all()
    assert (corrected["value_as_number"].list.first() != corrected["value_as_number"].list.last()).mean() > 0.95


def test_nobody_is_seen_before_birth_or_entry_or_after_death(small: Chunk) -> None:
    deaths = small.ehr["death"].select("person_id", "death_datetime")
    people = small.people.select("person_id", "born", "entry")
    for name in ("visit_occurrence", "condition_occurrence", "drug_exposure", "measurement"):
        start = START_OF[name]
        rows = small.ehr[name].join(deaths, on="person_id", how="left").join(people, on="person_id")
        assert (rows[start].dt.date() >= rows["entry"]).all()
        assert (rows["entry"] >= rows["born"]).all()
        assert rows.filter(pl.col(start) > pl.col("death_datetime")).is_empty(), name


def test_diagnoses_follow_the_truth_but_for_a_few_wrong_codes(small: Chunk) -> None:
    coded = small.ehr["condition_occurrence"].sort("recorded_at").unique("condition_occurrence_id", keep="last")
    coded = coded.with_columns(category=pl.col("condition_source_value").str.head(3))
    true = small.onsets.select("person_id", "category", "onset")
    joined = coded.join(true, on=["person_id", "category"], how="left")
    unfounded = joined["onset"].is_null() | (joined["onset"] > joined["condition_start_date"])
    assert 0 < unfounded.mean() < 0.01
    never = small.onsets.filter((pl.col("recording") == "unseen") & (pl.col("category") != "death"))
    assert never.height > 0
    assert never["recorded_from"].is_null().all()


def test_drugs_follow_their_diagnosis(small: Chunk) -> None:
    metformin = small.ehr["drug_exposure"].filter(pl.col("drug_source_value") == "A10BA02")["person_id"].unique()
    diabetics = small.onsets.filter(pl.col("category") == "E11")["person_id"]
    assert len(metformin) > 20
    assert metformin.is_in(diabetics.implode()).all()


def test_haemoglobin_a1c_rises_from_health_through_prediabetes_to_diabetes(small: Chunk) -> None:
    values = small.ehr["measurement"].filter(pl.col("measurement_source_value") == "4548-4")
    onsets = {
        c: small.onsets.filter(pl.col("category") == c).select("person_id", c=pl.col("onset")) for c in ("R73", "E11")
    }
    for name, frame in onsets.items():
        values = values.join(frame.rename({"c": name}), on="person_id", how="left")
    day = pl.col("measurement_date")
    diabetic = values.filter(pl.col("E11") <= day)["value_as_number"].median()
    before = values.filter((pl.col("R73") <= day) & (pl.col("E11").is_null() | (pl.col("E11") > day)))
    healthy = values.filter(pl.col("R73").is_null() & pl.col("E11").is_null())["value_as_number"].median()
    assert healthy < before["value_as_number"].median() < diabetic


def test_sites_differ_in_labs_and_in_specific_codes(small: Chunk) -> None:
    site = small.people.select("person_id", "site")
    labs, visits = (small.ehr[name].join(site, on="person_id") for name in ("measurement", "visit_occurrence"))
    per_visit = {s: (labs["site"] == s).sum() / (visits["site"] == s).sum() for s in ("A", "B")}
    assert per_visit["B"] < 0.75 * per_visit["A"]
    failing = small.ehr["condition_occurrence"].join(site, on="person_id")
    failing = failing.filter(pl.col("condition_source_value").str.starts_with("E11"))
    vague = failing.group_by("site").agg((pl.col("condition_source_value") == "E11.9").mean().alias("vague"))
    shares = dict(vague.iter_rows())
    assert shares["B"] > shares["A"] + 0.2


def test_a_patient_has_60_to_80_events(small: Chunk) -> None:
    known = [small.ehr[name].filter(pl.col(start) <= FIRST_TODAY) for name, start in START_OF.items()]
    assert 60 < sum(frame.height for frame in known) / small.people.height < 80
    assert small.people["entry"].max() < FIRST_TODAY < END


@pytest.fixture(scope="module")
def lives() -> Lives:
    rng = np.random.Generator(np.random.SFC64(3))
    return simulate(process_of("general"), sample_people(4_000, rng), rng)


def test_a_planted_effect_shows_in_the_lives(lives: Lives) -> None:
    """Incidence of diabetes per person-year after prediabetes against before it; the planted ratio is 5."""
    process = process_of("general")
    before, after = (lives.onset[:, process.index(c)] for c in ("R73", "E11"))
    entry, gone = lives.people.entry, np.minimum(lives.gone, day_of(END))
    last = np.minimum(gone, after)
    exposed = np.clip(last - np.maximum(before, entry), 0, None).sum()
    spared = np.clip(np.minimum(last, before) - entry, 0, None).sum()
    new = (after >= entry) & (after <= gone)
    ratio = ((new & (before < after)).sum() / exposed) / ((new & (before >= after)).sum() / spared)
    assert 3 < ratio < 9


def test_chronic_diseases_begin_once_and_acute_ones_come_again(lives: Lives) -> None:
    chronic = process_of("general").chronic
    assert len(lives.episode_day) > 500
    assert not chronic[lives.episode_disease].any()


def test_taking_some_lives_keeps_their_episodes_and_visits(lives: Lives) -> None:
    chosen = np.array([17, 3, 99])
    taken = lives.take(chosen)
    assert np.array_equal(taken.onset, lives.onset[chosen])
    for place, person in enumerate(chosen):
        assert sorted(taken.visit_day[taken.visit_person == place]) == sorted(
            lives.visit_day[lives.visit_person == person]
        )
        assert (taken.episode_person == place).sum() == (lives.episode_person == person).sum()


def test_the_months_before_pancreatic_cancer_show_its_prodrome() -> None:
    """Enriched preset: new diabetes, weight loss and jaundice are far commoner in the year before the diagnosis."""
    (chunk,) = generate(Order(3_000, "pancreas", 2))
    onsets = chunk.onsets.filter(pl.col("onset").is_not_null())
    cancer = onsets.filter(pl.col("category") == "C25").select("person_id", diagnosed="onset")
    assert cancer.height > 200
    for category, least in (("R63", 3), ("R17", 5), ("E11", 1.5)):
        signs = onsets.filter(pl.col("category") == category).join(cancer, on="person_id")
        days = (signs["diagnosed"] - signs["onset"]).dt.total_days()
        year, earlier = days.is_between(0, 365).sum(), days.is_between(366, 3 * 365).sum() / 2
        assert year > least * max(earlier, 1), category


def test_the_enriched_preset_has_people_of_45_and_older() -> None:
    (chunk,) = generate(Order(500, "pancreas", 2))
    assert ((chunk.people["entry"] - chunk.people["born"]).dt.total_days() >= 45 * 365).all()


def test_the_small_hospital_is_the_one_that_was_ordered(small: Chunk) -> None:
    assert small.people.height == 2_000
    assert small.onsets.filter(pl.col("began").is_null()).is_empty()
    assert (small.onsets["category"] == "death").sum() >= small.ehr["death"].height > 0
