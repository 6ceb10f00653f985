"""What publication hands over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

TableName = Literal["risk_scores", "disease_interconnections"]


@dataclass(frozen=True)
class PublishedTable:
    """A published table: its columns and its key.

    Attributes:
        columns: what a publication brings, in the order of the rows' digest; no release id, no time of making.
        key: with the release id, the primary key; rows are sorted by it.
        made_at: column that says when the rows were made.
    """

    name: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    made_at: str


RISK_SCORES = PublishedTable(
    name="risk_scores",
    columns=(
        "pseudonym",
        "as_of",
        "outcome",
        "horizon_days",
        "risk",
        "in_scope",
        "scope_reason",
        "model_name",
        "model_version",
        "decision",
        "snapshot_digest",
    ),
    key=("pseudonym", "outcome"),
    made_at="scored_at",
)

INTERCONNECTIONS = PublishedTable(
    name="disease_interconnections",
    columns=(
        "as_of",
        "method",
        "source_code",
        "target_code",
        "directed",
        "weight",
        "weight_meaning",
        "ci_low",
        "ci_high",
        "p_adjusted",
        "significant",
        "n_source",
        "n_target",
        "n_both",
        "snapshot_digest",
    ),
    key=("method", "source_code", "target_code"),
    made_at="computed_at",
)

TABLES: dict[str, PublishedTable] = {table.name: table for table in (RISK_SCORES, INTERCONNECTIONS)}


@dataclass(frozen=True)
class Origin:
    """Where rows come from.

    Attributes:
        run_id: of the orchestrator, free text.
        made_at: when the rows were computed, UTC.
        facts: further values that the audit compares every row with.
    """

    as_of: date
    run_id: str
    snapshot_digest: str
    made_at: datetime
    facts: dict[str, Any]
    model_version: int | None = None


@dataclass(frozen=True)
class Fence:
    """The right to publish a table's day, until someone else acquires it."""

    table: TableName
    as_of: date
    token: int


@dataclass(frozen=True)
class Release:
    """One published set of rows.

    Attributes:
        rows_digest: SHA-256 over the rows, sorted, without release id and time of making.
        current: whether the table's pointer is on it.
        new: whether this call made it; False where the same rows were found published already.
        suppressed: rows that disclosure control kept back in this call.
    """

    release_id: str
    table: TableName
    as_of: date
    run_id: str
    token: int
    model_version: int | None
    snapshot_digest: str
    row_count: int
    rows_digest: str
    released_at: datetime
    current: bool = False
    new: bool = False
    suppressed: int = 0

    def summary(self) -> dict[str, Any]:
        """Small JSON for a task's log and XCom."""
        return {
            "release_id": self.release_id,
            "table": self.table,
            "as_of": self.as_of.isoformat(),
            "model_version": self.model_version,
            "rows": self.row_count,
            "suppressed": self.suppressed,
            "current": self.current,
            "new": self.new,
        }
