"""What quality found, in counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
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
class CodeCount:
    """A code and its rows: never fewer than the setting ``min_cell``."""

    code: str
    rows: int


@dataclass(frozen=True)
class KindDrift:
    """The codes of a kind of record, the trailing seven nights (now) against the four weeks before.

    Attributes:
        rows, rows_before: rows with a code.
        judged: both are enough to be judged.
        psi, psi_limit: population stability index and what is tolerated of it; None where not judged.
        new_codes, new_rows, new_limit, new_named: codes it had not before, their rows, the share of rows that is
            tolerated, the most frequent.
        regular_codes, vanished_codes, vanished_named: codes regular before, those now absent, the most frequent.
        unmet, unmet_share, unmet_share_before: rows whose code met no dictionary, and their shares.
        unmapped, unmapped_share, unmapped_share_before: rows whose code the mapping to another vocabulary lacks.
    """

    kind: str
    rows: int
    rows_before: int
    judged: bool
    psi: float | None
    psi_limit: float | None
    new_codes: int
    new_rows: int
    new_limit: float
    new_named: tuple[CodeCount, ...]
    regular_codes: int
    vanished_codes: int
    vanished_named: tuple[CodeCount, ...]
    unmet: int
    unmet_share: float
    unmet_share_before: float
    unmapped: int
    unmapped_share: float
    unmapped_share_before: float


@dataclass(frozen=True)
class Volume:
    """A kind's rows and what the trailing four weeks let expect.

    Attributes:
        expected, tolerance: None where there are too few trailing days.
        absent: it always has rows, and has none now.
        days: rows per day of the trailing days, by recorded day.
    """

    kind: str
    rows: int
    expected: float | None
    tolerance: float | None
    absent: bool
    days: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """What the night is like beside its trailing weeks.

    Attributes:
        recent_from, recent_to: recorded days of the trailing seven nights; empty in a base load.
        recent_days, reference_days: days they cover, and the four weeks before them.
        volumes: by kind of record.
        kinds: code drift by kind; empty where there are too few days to compare with.
    """

    recent_from: str = ""
    recent_to: str = ""
    recent_days: int = 0
    reference_days: int = 0
    volumes: tuple[Volume, ...] = ()
    kinds: tuple[KindDrift, ...] = ()


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
        drift: volumes and codes beside the trailing weeks; None where they were not looked at.
    """

    as_of: date
    passed: bool
    empty: bool
    rows: int
    quarantined: int
    results: tuple[Result, ...] = ()
    drift: Drift | None = None

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
        drift=_drift(values.get("drift")),
    )


def _drift(values: dict[str, Any] | None) -> Drift | None:
    if values is None:
        return None
    named = ("new_named", "vanished_named")
    kinds = [
        {**kind, **{name: tuple(CodeCount(**code) for code in kind[name]) for name in named}}
        for kind in values["kinds"]
    ]
    return Drift(
        **{
            **values,
            "volumes": tuple(Volume(**volume) for volume in values["volumes"]),
            "kinds": tuple(KindDrift(**kind) for kind in kinds),
        }
    )
