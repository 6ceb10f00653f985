"""How many of the demo hospital's planted directed effects each interconnection method finds.

Run: python -m benchmarks.recovery [--patients 20000] [--choices]

The hospital comes straight from its generator, as of a night, in the shape in which extraction would give it; no
Postgres is needed. ``--choices`` also tries other choices of ``relative_risk``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import astuple, fields
from datetime import date, datetime

import numpy as np
import polars as pl

from ml.demo.concepts import load_codes
from ml.demo.generate import Order, generate
from ml.demo.process import load_process
from ml.interconnections.cohort import Cohort, build_cohort
from ml.interconnections.compare import Recovery, TrueEffect, recovery
from ml.interconnections.matrix import InterconnectionMatrix
from ml.interconnections.methods import METHODS
from ml.interconnections.methods.relative_risk import Choices, relative_risk
from ml.settings import get_settings

NIGHT = date(2024, 12, 31)
FEMALE = 8532
OTHER_CHOICES = {
    "no strata by age": Choices(band_years=120),
    "ten years of age": Choices(band_years=10),
    "no clearance": Choices(clearance_days=0),
    "730 days of clearance": Choices(clearance_days=730),
    "a gap of 30 days": Choices(gap_days=30),
}


def demo_cohort(order: Order) -> Cohort:
    """The demo hospital as of the night."""
    codes = load_codes()
    names = [f"{vocabulary}//{code}" for vocabulary, code in zip(codes.vocabularies, codes.codes, strict=True)]
    concepts = pl.DataFrame({"concept": codes.concept_ids(), "code": names})
    return build_cohort((_view(chunk.ehr, concepts) for chunk in generate(order)), get_settings().min_cell, NIGHT, "")


def _view(ehr: dict[str, pl.DataFrame], concepts: pl.DataFrame) -> pl.DataFrame:
    def known(table: str, key: str) -> pl.DataFrame:
        rows = ehr[table].filter(pl.col("recorded_at") < datetime(NIGHT.year + 1, 1, 1)).sort("recorded_at")
        return rows.group_by(key).last().filter(~pl.col("removed"))

    def events(rows: pl.DataFrame, time: str | None, code: pl.Expr) -> pl.DataFrame:
        when = pl.col(time) if time else pl.lit(None)
        return rows.select(subject_id="person_id", time=when.cast(pl.Datetime("us")), code=code)

    conditions = known("condition_occurrence", "condition_occurrence_id")
    conditions = conditions.join(concepts, left_on="condition_concept_id", right_on="concept")
    person = known("person", "person_id")
    sex = pl.when(pl.col("gender_concept_id") == FEMALE).then(pl.lit("GENDER//F")).otherwise(pl.lit("GENDER//M"))
    return pl.concat(
        [
            events(conditions, "condition_start_datetime", pl.col("code")),
            events(known("visit_occurrence", "visit_occurrence_id"), "visit_start_datetime", pl.lit("VISIT//any")),
            events(known("death", "person_id"), "death_datetime", pl.lit("MEDS_DEATH")),
            events(person, "birth_datetime", pl.lit("MEDS_BIRTH")),
            events(person, None, sex),
        ]
    )


def demo_truth() -> list[TrueEffect]:
    """The planted effects that count from a recorded disease, death as a target left out."""
    return [TrueEffect(e.source, e.target, e.hazard_ratio) for e in load_process().effects if e.kind == "effect"]


def coverage(matrix: InterconnectionMatrix, truth: list[TrueEffect]) -> float:
    """Share of the planted ratios with a weight that lie in its interval."""
    ratio = {(effect.source, effect.target): effect.ratio for effect in truth}
    names = [code.split("//")[1] for code in matrix.codes]
    pairs = matrix.pairs
    found = [ratio.get((names[s], names[t]), np.nan) for s, t in zip(pairs.source, pairs.target, strict=True)]
    true = np.array(found)
    known = ~np.isnan(true)
    return float(((pairs.ci_low <= true) & (true <= pairs.ci_high))[known].mean())


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--choices", action="store_true")
    options = parser.parse_args()
    order = Order(options.patients, "general", get_settings().seed)
    cohort, truth, least = demo_cohort(order), demo_truth(), get_settings().min_cell
    print(f"{order.identity}; as of {NIGHT}; {len(cohort.codes)} codes")
    columns = [field.name for field in fields(Recovery)]
    print(f"{'':<24}{'seconds':>8}{'covered':>8}  " + " ".join(columns))
    runs = {name: lambda method=method: method(cohort, least) for name, method in METHODS.items()}
    if options.choices:
        runs |= {name: lambda c=choice: relative_risk(cohort, least, c) for name, choice in OTHER_CHOICES.items()}
    found = {}
    for name, run in runs.items():
        begun = time.perf_counter()
        matrix = run()
        seconds, found[name] = time.perf_counter() - begun, recovery(matrix, truth)
        values = " ".join(f"{_text(value):>{len(c)}}" for c, value in zip(columns, astuple(found[name]), strict=True))
        print(f"{name:<24}{seconds:>8.2f}{coverage(matrix, truth):>8.2f}  {values}")
    best = found["relative_risk"]
    print(
        f"\nsignificant={best.significant} effects={best.effects} shown={best.shown} wrong_sign={best.wrong_sign} "
        f"other_significant={best.other_significant} other_pairs={best.other_pairs} auroc={best.auroc:.3f} "
        f"precision={best.precision_at_effects:.3f} fisher_precision={found['fisher'].precision_at_effects:.3f}"
    )


if __name__ == "__main__":
    main()
