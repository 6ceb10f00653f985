"""What a source says of a table that its queries name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """A table that queries name, as ``{name}``.

    Attributes:
        name: the name in the queries; also the table's, unless ``table`` says otherwise.
        required: columns that must exist, with the Postgres type of what stands in where the table may be absent.
        optional: columns that are null where the table lacks them, with their Postgres type.
        subject: the column that holds the person; None for a table without patients.
        key: id of a record that can be reassigned to another person; None where the person is the key.
        table: the table behind it.
        may_be_absent: an absent table is an empty one.
        assumed: ``.sql`` file that adds ``recorded_at`` and ``removed`` to a table of patients that keeps no history;
            without such a file the table must have a column ``recorded_at``.
        adds: ``.sql`` file that adds columns to the rows.
        names: columns by the placeholder under which ``assumed`` and ``adds`` name them.
    """

    name: str
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None
    key: str | None = None
    table: str = ""
    may_be_absent: bool = False
    assumed: str | None = None
    adds: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def table_name(self) -> str:
        return self.table or self.name

    @property
    def columns(self) -> dict[str, str]:
        """Type by column, of all columns that queries may name."""
        return {**self.required, **self.optional}
