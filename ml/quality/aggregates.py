"""The expectations on counts: codes, volumes, drift, rows that cannot be placed, tables wholly in the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml.extraction.log import Partition
from ml.quality.rules import (
    AGGREGATE_RULES,
    NEW_SHARE,
    PSI_WARN,
    ROW_TOLERANCE,
    SHARE_RISE,
    UNMAPPED_BLOCK,
    UNMAPPED_WARN,
)
from ml.quality.suites import suite_of
from ml.quality.verdict import Drift, KindDrift, Outcome, Result, Volume
from ml.quality.volume import departure, volume_departure

if TYPE_CHECKING:  # Great Expectations: what an empty night does without
    from ml.quality.counting import Tally
    from ml.quality.expectations import Examiner


@dataclass(frozen=True)
class Measure:
    """A number that must not exceed its limit, and what rows it is about."""

    name: str
    subject: str
    value: float
    limit: float
    checked: int
    at_fault: int
    remedy: str = ""

    def result(self, *, failed: bool) -> Result:
        rule = AGGREGATE_RULES[self.name]
        outcome: Outcome = rule.severity if failed else "pass"
        remedy = self.remedy or rule.remedy
        return Result(self.name, self.subject, outcome, self.checked, self.at_fault, False, remedy)


def ask_schema(examiner: Examiner, partition: Partition) -> Result:
    """Whether the partition's files have the columns of the event schema."""
    from ml.quality.expectations import schema_suite
    from ml.quality.frames import expected_schema, schema_frame

    (finding,) = examiner.ask(schema_frame(partition), schema_suite(expected_schema()))
    measure = Measure("schema", "partition", 0, 0, len(partition.files), finding.at_fault)
    return measure.result(failed=not finding.success)


def ask_aggregates(examiner: Examiner, measures: Sequence[Measure]) -> list[Result]:
    """Ask all of them, in one row of numbers."""
    import pandas as pd

    from ml.quality.expectations import aggregate_suite

    columns = {f"{measure.name}:{measure.subject}": measure for measure in measures}
    frame = pd.DataFrame({name: [measure.value] for name, measure in columns.items()})
    findings = examiner.ask(frame, aggregate_suite({name: measure.limit for name, measure in columns.items()}))
    failed = {finding.name for finding in findings if not finding.success}
    return [measure.result(failed=name in failed) for name, measure in columns.items()]


def measures_of(partition: Partition, committed: Sequence[Partition], tally: Tally, drift: Drift) -> list[Measure]:
    """Every aggregate of a partition."""
    return [
        *_mapping(tally),
        *_placing(partition),
        _future(partition),
        *volume_measures(partition, committed, drift),
        *(measure for kind in drift.kinds for measure in drift_measures(kind)),
    ]


def _mapping(tally: Tally) -> list[Measure]:
    coded = {kind: n for kind, n in sorted(tally.kinds.items()) if "unmapped_codes" in suite_of(kind).aggregates}
    measures = [
        Measure("unmapped_codes", kind, tally.unmapped[kind] / rows, UNMAPPED_WARN, rows, tally.unmapped[kind])
        for kind, rows in coded.items()
    ]
    rows, unmapped = sum(coded.values()), sum(tally.unmapped[kind] for kind in coded)
    share = unmapped / max(rows, 1)
    return [*measures, Measure("mostly_mapped", "partition", share, UNMAPPED_BLOCK, rows, unmapped)]


def volume_measures(partition: Partition, committed: Sequence[Partition], drift: Drift) -> list[Measure]:
    """The night's rows, of all kinds and of each."""
    whole, rows = volume_departure(partition, committed), partition.total
    of_kinds = [measure for volume in drift.volumes for measure in _volume(volume)]
    return [Measure("volume", "partition", whole, 1.0, rows, rows if whole > 1 else 0), *of_kinds]


def _volume(volume: Volume) -> list[Measure]:
    away = departure(volume)
    return [
        Measure("volume_of_kind", volume.kind, away, 1.0, volume.rows, volume.rows if away > 1 else 0),
        Measure("kind_present", volume.kind, float(volume.absent), 0.0, 1, int(volume.absent)),
    ]


def drift_measures(kind: KindDrift) -> list[Measure]:
    """What is asked of a kind's codes; one with too few rows passes."""

    def measure(name: str, value: float, limit: float, checked: int, at_fault: int) -> Measure:
        value = value if kind.judged else 0.0
        return Measure(name, kind.kind, value, limit, checked, at_fault if value > limit else 0)

    unmet = max(kind.unmet_share - kind.unmet_share_before, 0.0)
    unmapped = max(kind.unmapped_share - kind.unmapped_share_before, 0.0)
    new_limit = max(kind.new_limit, NEW_SHARE)
    return [
        measure("code_stability", max(kind.psi or 0.0, 0.0), kind.psi_limit or PSI_WARN, kind.rows, kind.rows),
        measure("codes_new", kind.new_rows / max(kind.rows, 1), new_limit, kind.rows, kind.new_rows),
        measure("codes_vanished", kind.vanished_codes, 0.0, kind.regular_codes, kind.vanished_codes),
        measure("dictionary_share", unmet, SHARE_RISE, kind.rows, kind.unmet),
        measure("mapping_share", unmapped, SHARE_RISE, kind.rows, kind.unmapped),
    ]


def _placing(partition: Partition) -> list[Measure]:
    """Rows without person, key or recorded_at; a night's own rows are too few to hold them against."""
    measures = []
    for kind, lost in sorted(partition.unplaced.items()):
        rows = lost + partition.rows.get(kind, 0)
        measures.append(Measure("rows_placed", kind, lost / rows, 0.0, rows, lost))
        if partition.recorded_from is None:
            measures.append(Measure("mostly_placed", kind, lost / rows, ROW_TOLERANCE, rows, lost))
    return measures


def _future(partition: Partition) -> Measure:
    kinds = partition.only_later
    remedy = f"every row of {', '.join(kinds)} is recorded after as_of: check the source's dates" if kinds else ""
    return Measure("recorded_by_as_of", "partition", float(len(kinds)), 0.0, len(partition.rows), len(kinds), remedy)
