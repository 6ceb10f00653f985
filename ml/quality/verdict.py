"""What quality found, in counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from ml.common.files import read_json, sha256_file, write_json
from ml.extraction.log import QUARANTINE, VERDICT, Partition, pending_path

Outcome = Literal["pass", "warn", "block"]


@dataclass(frozen=True)
class Result:
    """One expectation on one kind of record, vocabulary or aggregate.

    Attributes:
        expectation: name, e.g. ``not_before_birth``.
        subject: what it was asked of: a kind of record, a vocabulary, or ``partition``.
        outcome: ``pass``, ``warn`` or ``block``.
        checked, at_fault: rows looked at (or aggregates) and how many failed.
        quarantined: whether the rows at fault are left out of the view.
        remedy: what a person can do.
    """

    expectation: str
    subject: str
    outcome: Outcome
    checked: int
    at_fault: int
    quarantined: bool
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """The judgement on a partition.

    Attributes:
        as_of: the partition's day.
        passed: no expectation blocks.
        empty: the partition holds no rows, which is no fault.
        rows: rows judged.
        quarantined: rows left out of the view.
        results: every expectation asked.
    """

    as_of: date
    passed: bool
    empty: bool
    rows: int
    quarantined: int
    results: tuple[Result, ...] = ()

    @property
    def warnings(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "warn")

    @property
    def blocks(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.outcome == "block")


def write_verdict(partition: Partition, verdict: Verdict) -> None:
    """Write the verdict on a pending partition, bound to the manifest and the quarantine it is about."""
    quarantine = partition.path / QUARANTINE
    write_json(
        partition.path / VERDICT,
        {
            **asdict(verdict),
            "manifest_sha256": sha256_file(pending_path(partition.as_of)),
            "quarantine_sha256": sha256_file(quarantine) if quarantine.exists() else None,
        },
    )


def read_verdict(partition: Partition) -> Verdict:
    """The verdict on a partition."""
    values: dict[str, Any] = read_json(partition.path / VERDICT)
    return Verdict(
        as_of=date.fromisoformat(values["as_of"]),
        passed=values["passed"],
        empty=values["empty"],
        rows=values["rows"],
        quarantined=values["quarantined"],
        results=tuple(Result(**result) for result in values["results"]),
    )
