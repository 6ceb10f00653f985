"""What a source is: tables it needs, and one query per kind of record that selects events.

An adapter is data: a folder of ``.sql`` files plus the tables they name. A query names a table as ``{person}``; what is
put there is built from what the schema really has (``ml.sources.relations``), so that one query serves a hospital that
keeps history, one that does not, and one that lacks an optional column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from psycopg2 import sql

from ml.common.db import Connection
from ml.settings import Settings, get_settings

if TYPE_CHECKING:
    from ml.sources.relations import Relations

History = Literal["kept", "assumed"]


@dataclass(frozen=True)
class Table:
    """A relation that queries name.

    Attributes:
        name: the name in the queries; also the table's, unless ``table`` says otherwise.
        required: columns that must exist, with the Postgres type of what stands in where the table may be absent.
        optional: columns that are null where the table lacks them, with their Postgres type.
        table: the table behind it.
        may_be_absent: an absent table is an empty one.
        key: id of a record that can be reassigned to another person; None where the person is the key.
        subject: the column that holds the person.
        assumed: ``.sql`` file that adds ``recorded_at`` and ``removed`` to a table without history; None for tables
            without patients.
    """

    name: str
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    table: str = ""
    may_be_absent: bool = False
    key: str | None = None
    subject: str = "person_id"
    assumed: str | None = None

    @property
    def table_name(self) -> str:
        return self.table or self.name


@dataclass(frozen=True)
class KindQuery:
    """The query of one kind of record.

    Attributes:
        kind: the name of the kind, e.g. ``condition_occurrence``; also of its ``.sql`` file.
        template: the query, with the relations, ``{recorded_from}`` and ``{recorded_until}`` still open.
        source: name of the relation whose rows the events are made of.
        relations: what the names in the query stand for.
    """

    kind: str
    template: str
    source: str
    relations: Relations

    @property
    def relation(self) -> sql.Composable:
        """The relation whose rows the events are made of."""
        return self.relations.nightly[self.source]

    def events(self, recorded_from: date | None, recorded_to: date) -> sql.Composable:
        """Events recorded on the days ``recorded_from`` (None: ever) to ``recorded_to``, both included.

        The two days become literals: the query is read by COPY, which takes no parameters.
        """
        return sql.SQL(self.template).format(
            **(self.relations.nightly if recorded_from else self.relations.whole),
            recorded_from=_timestamp(datetime.combine(recorded_from, time.min) if recorded_from else None),
            recorded_until=_timestamp(datetime.combine(recorded_to, time.min) + timedelta(days=1)),
        )

    def any_row(self) -> sql.Composable:
        """Whether the kind has any row at all, whenever recorded."""
        return sql.SQL("select exists (select 1 from {} t)").format(self.relation)

    def last_recorded(self) -> sql.Composable:
        """When the newest row of the kind was recorded."""
        return sql.SQL("select max(t.recorded_at) from {} t").format(self.relation)

    def unplaced_rows(self) -> sql.Composable:
        """How many rows have no recorded_at, so that no night can ever take them."""
        return sql.SQL("select count(*) from {} t where t.recorded_at is null").format(self.relation)


@dataclass(frozen=True)
class SourcePlan:
    """The queries of a source, made for one schema as it is today.

    Attributes:
        history: ``kept`` if every version of a row carries the time it became known; ``assumed`` if Vigil derives it
            (end of the visit or of the event's day).
    """

    source: str
    schema: str
    history: History
    kinds: tuple[KindQuery, ...]


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
        tables: what the queries may name.
        kinds: kind of record, which is also the name of its ``.sql`` file → the table its rows come from.
        derived: names of files in ``derived/``, relations made of tables that queries may name too.
        flags: names in the queries that stand for true or false, by setting.
    """

    name: str
    folder: Path
    tables: tuple[Table, ...]
    kinds: Mapping[str, str]
    derived: tuple[str, ...] = ()
    flags: Mapping[str, Callable[[Settings], bool]] = field(default_factory=dict)

    def plan(self, connection: Connection, schema: str) -> SourcePlan:
        from ml.sources.relations import build_relations, load_history

        flags = {name: sql.Literal(flag(get_settings())) for name, flag in self.flags.items()}
        relations = build_relations(connection, schema, self.tables, self.folder, self.derived).with_names(flags)
        kinds = tuple(
            KindQuery(kind, (self.folder / f"{kind}.sql").read_text(), relation, relations)
            for kind, relation in self.kinds.items()
        )
        assumed_by_loader = load_history(connection, schema, self.name) == "assumed"
        return SourcePlan(self.name, schema, "kept" if relations.kept and not assumed_by_loader else "assumed", kinds)


def _timestamp(moment: datetime | None) -> sql.Composable:
    return sql.SQL("{}::timestamp").format(sql.Literal(moment.isoformat(sep=" ") if moment else "-infinity"))
