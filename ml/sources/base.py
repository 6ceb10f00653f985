"""What a source is: tables it needs, and one query per kind of record that selects events.

An adapter is data: a folder of ``.sql`` files plus the tables they name. A query names a table as ``{person}``; what is
put there is built from what the schema really has (``ml.sources.relations``), so that one query serves a hospital that
keeps history, one that does not, and one that lacks an optional column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal, Protocol

from psycopg2 import sql

from ml.common.db import Connection
from ml.settings import Settings, get_settings
from ml.sources.relations import MissingIndex, Relation, build_relations, load_history, span
from ml.sources.tables import Table

History = Literal["kept", "assumed"]


@dataclass(frozen=True)
class KindQuery:
    """The query of one kind of record.

    Attributes:
        kind: the name of the kind, e.g. ``condition_occurrence``; also of its ``.sql`` file.
        template: the query, with tables, ``{recorded_from}`` and ``{recorded_until}`` still open.
        table: the table whose rows the events are made of.
        relation: that table's rows.
        parts: whatever else the query names, tables that it joins and flags, in a night (False) and a base load (True).
    """

    kind: str
    template: str
    table: str
    relation: Relation
    parts: Mapping[bool, Mapping[str, sql.Composable]]

    def events(self, recorded_from: date | None, recorded_to: date) -> sql.Composable:
        """Events recorded on the days ``recorded_from`` (None: ever) to ``recorded_to``, both included.

        The two days become literals: the query is read by COPY, which takes no parameters.
        """
        rows = {self.table: self.relation.recorded(recorded_from, recorded_to)}
        return sql.SQL(self.template).format(
            **{**self.parts[recorded_from is None], **rows, **span(recorded_from, recorded_to)}
        )

    def any_row(self) -> sql.Composable:
        """Whether the kind has any row at all, whenever recorded."""
        return sql.SQL("select exists (select 1 from {} t)").format(self.relation.versions)

    def last_recorded(self) -> sql.Composable:
        """When the newest row of the kind was recorded."""
        return sql.SQL("select max(t.recorded_at) from {} t").format(self.relation.versions)

    def unplaced_rows(self) -> sql.Composable:
        """How many rows have no recorded_at, so that no night can ever take them."""
        return sql.SQL("select count(*) from {} t where t.recorded_at is null").format(self.relation.versions)


@dataclass(frozen=True)
class SourcePlan:
    """The queries of a source, made for one schema as it is today.

    Attributes:
        history: ``kept`` if every version of a row carries the time it became known; ``assumed`` if Vigil derives it
            (end of the visit or of the event's day).
        unindexed: tables that keep history and that every night reads whole.
    """

    source: str
    schema: str
    history: History
    kinds: tuple[KindQuery, ...]
    unindexed: tuple[MissingIndex, ...] = ()


class Source(Protocol):
    """An EHR schema that Vigil can read."""

    @property
    def name(self) -> str: ...

    def plan(self, connection: Connection, schema: str) -> SourcePlan:
        """Look at the schema and make the queries.

        Raises:
            SourceError: a table or column that the queries need is missing.
        """
        ...


@dataclass(frozen=True)
class SqlSource:
    """A source made of a folder of ``.sql`` files and the tables they name.

    Attributes:
        name: the layout's name, under which ``vigil load`` records what it loaded.
        folder: where the files are. Each kind has one of its name.
        tables: what the queries name. ``Table.adds`` may name tables that stand before it.
        kinds: kind of record, which is also the ``.sql`` file's name → the table its rows come from.
        flags: names in the files that stand for true or false, by setting.
    """

    name: str
    folder: Path
    tables: tuple[Table, ...]
    kinds: Mapping[str, str]
    flags: Mapping[str, Callable[[Settings], bool]] = field(default_factory=dict)

    def plan(self, connection: Connection, schema: str) -> SourcePlan:
        flags = {name: sql.Literal(flag(get_settings())) for name, flag in self.flags.items()}
        relations = build_relations(connection, schema, self.tables, self.folder, flags)
        kinds = tuple(
            KindQuery(kind, (self.folder / f"{kind}.sql").read_text(), table, relations.rows[table], relations.lookups)
            for kind, table in self.kinds.items()
        )
        assumed_by_loader = load_history(connection, schema, self.name) == "assumed"
        return SourcePlan(
            self.name,
            schema,
            "kept" if relations.kept and not assumed_by_loader else "assumed",
            kinds,
            relations.unindexed,
        )
