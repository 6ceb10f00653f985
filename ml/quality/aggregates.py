"""The expectations on counts: unmapped codes, volume, rows that cannot be placed, tables wholly in the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ml.extraction.log import Partition
from ml.quality.counting import Tally
from ml.quality.expectations import Examiner, aggregate_suite, schema_suite
from ml.quality.frames import expected_schema, schema_frame, volume_departure
from ml.quality.rules import CODED_KINDS_LEFT_OUT, ROW_TOLERANCE, UNMAPPED_BLOCK, UNMAPPED_WARN
from ml.quality.verdict import Outcome, Result


@dataclass(frozen=True)
class _Measure:
    """A number that must not exceed its limit, and what rows it is about."""

    name: str
    subject: str
    value: float
    limit: float
    severity: Outcome
    checked: int
    at_fault: int
    remedy: str


def ask_schema(examiner: Examiner, partition: Partition) -> Result:
    """Whether the partition's files have the columns of the event schema."""
    (finding,) = examiner.ask(schema_frame(partition), schema_suite(expected_schema()))
    remedy = "extract the day again with this version of Vigil"
    outcome: Outcome = "pass" if finding.success else "block"
    return Result(finding.name, "partition", outcome, len(partition.files), finding.at_fault, False, remedy)


def ask_aggregates(
    examiner: Examiner, partition: Partition, committed: Sequence[Partition], tally: Tally
) -> list[Result]:
    """Ask all of them, in one row of numbers."""
    measures = [*_mapping(tally), _volume(partition, committed), *_placing(partition), _future(partition)]
    columns = {f"{measure.name}:{measure.subject}": measure for measure in measures}
    frame = pd.DataFrame({name: [measure.value] for name, measure in columns.items()})
    findings = examiner.ask(frame, aggregate_suite({name: measure.limit for name, measure in columns.items()}))
    failed = {finding.name for finding in findings if not finding.success}
    return [
        Result(m.name, m.subject, m.severity if name in failed else "pass", m.checked, m.at_fault, False, m.remedy)
        for name, m in columns.items()
    ]


def _mapping(tally: Tally) -> list[_Measure]:
    remedy = "extend the concept table, or the mapping to it"
    coded = {kind: rows for kind, rows in sorted(tally.kinds.items()) if kind not in CODED_KINDS_LEFT_OUT}
    measures = [
        _Measure(
            "unmapped_codes",
            kind,
            tally.unmapped[kind] / rows,
            UNMAPPED_WARN,
            "warn",
            rows,
            tally.unmapped[kind],
            remedy,
        )
        for kind, rows in coded.items()
    ]
    rows, unmapped = sum(coded.values()), sum(tally.unmapped[kind] for kind in coded)
    share = unmapped / max(rows, 1)
    return [*measures, _Measure("mostly_mapped", "partition", share, UNMAPPED_BLOCK, "block", rows, unmapped, remedy)]


def _volume(partition: Partition, committed: Sequence[Partition]) -> _Measure:
    departure = volume_departure(partition, committed)
    remedy = "check whether the source's feed is complete"
    rows = partition.total
    return _Measure("volume", "partition", departure, 1.0, "warn", rows, rows if departure > 1 else 0, remedy)


def _placing(partition: Partition) -> list[_Measure]:
    """Rows without person, key or recorded_at; a night's own rows are too few to hold them against."""
    remedy = "fill person, key and recorded_at of these rows in the source"
    measures = []
    for kind, lost in sorted(partition.unplaced.items()):
        rows = lost + partition.rows.get(kind, 0)
        measures.append(_Measure("rows_placed", kind, lost / rows, 0.0, "warn", rows, lost, remedy))
        if partition.recorded_from is None:
            measures.append(_Measure("mostly_placed", kind, lost / rows, ROW_TOLERANCE, "block", rows, lost, remedy))
    return measures


def _future(partition: Partition) -> _Measure:
    kinds = partition.only_later
    remedy = f"every row of {', '.join(kinds)} is recorded after as_of: check the source's dates"
    return _Measure(
        "recorded_by_as_of", "partition", float(len(kinds)), 0.0, "block", len(partition.rows), len(kinds), remedy
    )
