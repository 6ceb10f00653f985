"""The demo hospital as a committed event log, straight from the generator, for experiments on a hospital of their own.

The same events as an extraction of the loaded hospital gives (ml/sources/omop), so the snapshots have the same digest;
a test holds the two together. No database takes part, and no user's log is touched: the caller names a deployment of
its own (`ml.settings.other_settings`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from pathlib import Path

import polars as pl

from ml.common.paths import remove
from ml.common.progress import Progress
from ml.demo.concepts import FIRST_CONCEPT, load_codes
from ml.demo.generate import Chunk, Order, generate
from ml.demo.people import SITES
from ml.demo.tables import Tables
from ml.extraction.commit import snapshot_of
from ml.extraction.log import Partition, committed_partitions, day_path, write_committed
from ml.extraction.schema import BIRTH, DEATH, EVENT_SCHEMA, VISIT_END
from ml.extraction.snapshot import Snapshot
from ml.extraction.snapshots import load_snapshot, save_snapshot
from ml.extraction.view import COLUMNS
from ml.settings import get_settings

ATTEMPT = "generated"
SEXES = {8507: "M", 8532: "F"}
VISITS = {9201: "inpatient", 9202: "outpatient", 9203: "emergency"}
CODED = {
    "condition_occurrence": "condition",
    "drug_exposure": "drug",
    "measurement": "measurement",
}
STARTS = {
    "condition_occurrence": "condition_start_datetime",
    "drug_exposure": "drug_exposure_start_datetime",
    "measurement": "measurement_datetime",
}


def commit_hospital(order: Order, as_of: date, truth: Path) -> Snapshot:
    """Generate a hospital into the event log of the settings, everything recorded by the end of ``as_of``; a finished
    one is kept.

    Args:
        order: which hospital. One log holds one.
        as_of: the only day of the log.
        truth: folder for ``people.parquet`` and ``onsets.parquet``, which `ml.demo.oracle.truth_of` reads.
    """
    if committed_partitions():
        return load_snapshot(as_of)
    remove(day_path(as_of))
    people, onsets = [], []
    partition = Partition(as_of, None, as_of, {"name": "omop", "order": order.identity}, "kept", 1, ATTEMPT)
    from ml.extraction.writer import ShardWriter

    settings = get_settings()
    partition = replace(partition, shards=settings.shards)
    progress, done = Progress("hospital", order.patients), 0
    with ShardWriter(partition.path, settings.shards, settings.batch_rows) as writer:
        for chunk in generate(order):
            for kind, frame in events_of(chunk, as_of):
                for batch in frame.to_arrow().cast(EVENT_SCHEMA).to_batches():
                    writer.write(kind, batch)
            people.append(chunk.people)
            onsets.append(chunk.onsets)
            done += len(chunk.people)
            progress.report(done, "patients")
    truth.mkdir(parents=True, exist_ok=True)
    pl.concat(people).write_parquet(truth / "people.parquet")
    pl.concat(onsets).write_parquet(truth / "onsets.parquet")
    partition = replace(
        partition, rows=dict(writer.rows), vocabularies=dict(writer.vocabularies), removed=writer.removed
    )
    partition = replace(partition, days=writer.days(), files=writer.files)
    snapshot = snapshot_of([partition], as_of)
    save_snapshot(snapshot)
    write_committed(partition)
    return snapshot


def events_of(chunk: Chunk, as_of: date) -> Iterator[tuple[str, pl.DataFrame]]:
    """Kind of record and its events (`EVENT_SCHEMA`'s columns) recorded by the end of a day, as ml/sources/omop has
    them."""
    over = datetime.combine(as_of + timedelta(days=1), time.min)
    known = {name: frame.filter(pl.col("recorded_at") < over) for name, frame in chunk.ehr.items()}
    yield "person", pl.concat(_persons(known))
    yield "visit_occurrence", pl.concat(_visits(known))
    for kind, stem in CODED.items():
        yield kind, _coded(known[kind], kind, stem)
    yield "death", _events(known["death"], pl.lit(DEATH), pl.col("death_datetime"), _key("death", "person_id"))


def _events(
    frame: pl.DataFrame, code: pl.Expr, at: pl.Expr, key: pl.Expr, value: pl.Expr | None = None, visit: bool = False
) -> pl.DataFrame:
    nothing = pl.lit(None)
    rows = frame.select(
        subject_id=pl.col("person_id"),
        time=at,
        code=code,
        numeric_value=nothing if value is None else value,
        text_value=nothing,
        visit_id=pl.col("visit_occurrence_id") if visit else nothing,
        recorded_at=pl.col("recorded_at"),
        source_key=key,
        removed=pl.col("removed"),
    )
    return rows.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())


def _key(table: str, column: str, suffix: str = "") -> pl.Expr:
    return pl.format("{}/{}{}", pl.lit(table), pl.col(column), pl.lit(suffix))


def _persons(tables: Tables) -> list[pl.DataFrame]:
    person = tables["person"]
    sex = pl.lit("GENDER//") + pl.col("gender_concept_id").replace_strict(SEXES, return_dtype=pl.String)
    sites = dict(enumerate(SITES, start=1))
    site = pl.lit("SITE//") + pl.col("care_site_id").replace_strict(sites, return_dtype=pl.String)
    static = pl.lit(None, dtype=pl.Datetime("us"))
    return [
        _events(person, pl.lit(BIRTH), pl.col("birth_datetime"), _key("person", "person_id", "/birth")),
        _events(person, sex, static, _key("person", "person_id", "/gender")),
        _events(person, site, static, _key("person", "person_id", "/site")),
    ]


def _visits(tables: Tables) -> list[pl.DataFrame]:
    """Visits, and the ends of stays over more than a day; an inpatient's version without an end takes one back."""
    visits = tables["visit_occurrence"]
    kind = pl.col("visit_concept_id").replace_strict(VISITS, default="other", return_dtype=pl.String)
    begin, end = pl.col("visit_start_datetime"), pl.col("visit_end_datetime")
    gone = (pl.col("visit_end_date") <= pl.col("visit_start_date")) | (end > pl.col("recorded_at"))
    ends = visits.filter(~gone | (pl.col("visit_concept_id") == 9201)).with_columns(removed=pl.col("removed") | gone)
    days = (end - begin).dt.total_microseconds() / 86_400e6
    return [
        _events(visits, pl.lit("VISIT//") + kind, begin, _key("visit_occurrence", "visit_occurrence_id"), visit=True),
        _events(
            ends, pl.lit(VISIT_END) + kind, end, _key("visit_occurrence", "visit_occurrence_id", "/end"), days, True
        ),
    ]


def _coded(frame: pl.DataFrame, kind: str, stem: str) -> pl.DataFrame:
    codes = load_codes()
    names = pl.Series(
        [f"{vocabulary}//{code}" for vocabulary, code in zip(codes.vocabularies, codes.codes, strict=True)]
    )
    frame = frame.with_columns(code=names.gather(frame[f"{stem}_concept_id"] - FIRST_CONCEPT))
    value = pl.col("value_as_number") if "value_as_number" in frame.columns else None
    return _events(frame, pl.col("code"), pl.col(STARTS[kind]), _key(kind, f"{kind}_id"), value, True)
