"""From declared tables to relations that fit the schema at hand.

A relation has all declared columns whatever the table has, plus ``recorded_at`` and ``removed`` where it holds
patients. A record that a later version gives to another person is taken back from the earlier one by a tombstone of
its own, because the log is split by person and nobody else could see the move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

from psycopg2 import sql

from ml.common.db import Connection, fetch
from ml.common.errors import SourceError
from ml.sources.tables import Table

HERE = Path(__file__).parent / "sql"
# In a base load, which looks up every row many times, what a table adds is computed once per row of that table; in a
# night once per record. An offset keeps the planner from merging the two.
ONCE = {False: sql.SQL(""), True: sql.SQL("offset 0")}


@dataclass(frozen=True)
class MissingIndex:
    """A table that a night has to read whole, because nothing finds the night's rows in it.

    Attributes:
        table: with its schema.
        column: the column that no index begins with: ``recorded_at``, or the key by which earlier versions are found.
        rows: about how many rows the table has; None where Postgres never counted them.
    """

    table: str
    column: str
    rows: int | None

    def __str__(self) -> str:
        rows = "all its rows" if self.rows is None else f"all its {self.rows:,} rows (about)"
        return f"{self.table} has no index that begins with {self.column}: every night reads {rows}"


@dataclass(frozen=True)
class Relation:
    """The rows of a table, for the one query that makes events of them.

    Attributes:
        versions: every version of every row, whenever recorded.
        moves: whether a record can change its person, so that tombstones are due.
        keyed: an index finds a record by its key.
        finish: puts the columns that the table adds around a relation, of a night and of a base load.
    """

    table: Table
    versions: sql.Composable
    moves: bool
    keyed: bool
    finish: Mapping[bool, Finish]

    def recorded(self, recorded_from: date | None, recorded_to: date) -> sql.Composable:
        """The versions of those days, both included, and tombstones; ``recorded_from`` None: from the beginning on.

        What ``moves`` is false for is not narrowed to the days: the query itself does that.
        """
        base_load = recorded_from is None
        if not self.moves:
            return self.finish[base_load](self.versions)
        table, names = self.table, [*self.table.columns]
        parts: dict[str, sql.Composable] = {
            "versions": self.versions,
            "key": sql.Identifier(str(table.key)),
            "subject": sql.Identifier(str(table.subject)),
        }
        # Without an index on the key the array would be gone through for every row.
        ever = _file(HERE / "moved_ever.sql", **parts) if base_load and self.keyed else sql.SQL("true")
        rows = _file(
            HERE / "moved.sql",
            **parts,
            columns=_join(sql.Identifier("t", name) for name in names),
            moved_columns=_join(sql.Identifier("o" if name == table.subject else "t", name) for name in names),
            moved_ever=ever,
            **span(recorded_from, recorded_to),
        )
        return self.finish[base_load](rows)


@dataclass(frozen=True)
class Finish:
    """Columns that a table adds to its rows, by the template of ``Table.adds``; ``template`` empty: none."""

    template: str
    parts: Mapping[str, sql.Composable]

    def __call__(self, rows: sql.Composable) -> sql.Composable:
        return _relation(self.template, **self.parts, base=rows) if self.template else rows


@dataclass(frozen=True)
class Relations:
    """What a schema offers to the queries of a source.

    Attributes:
        rows: by table name, for the query that makes events of them.
        lookups: by table name, for queries that join them in a night (False) or a base load (True): of a table that
            keeps history the newest versions alone, so that no join multiplies rows.
        kept: whether every table with patients keeps history.
        unindexed: tables that keep history and cannot be read by the day.
    """

    rows: Mapping[str, Relation]
    lookups: Mapping[bool, Mapping[str, sql.Composable]]
    kept: bool
    unindexed: tuple[MissingIndex, ...]


@dataclass(frozen=True)
class _Catalogue:
    """Readable columns by table; rows and ``column method`` of each index by table, where tables have any."""

    columns: Mapping[str, frozenset[str]]
    indexes: Mapping[str, tuple[int | None, frozenset[str]]]

    def keeps_history(self, table: Table) -> bool:
        return table.subject is not None and "recorded_at" in self.columns.get(table.table_name, frozenset())

    def has_index(self, table: Table, column: str, methods: Iterable[str] = ("btree",)) -> bool:
        _, found = self.indexes.get(table.table_name, (None, frozenset[str]()))
        return any(f"{column} {method}" in found for method in methods)


def build_relations(
    connection: Connection,
    schema: str,
    tables: tuple[Table, ...],
    folder: Path,
    flags: Mapping[str, sql.Composable],
) -> Relations:
    """Relations for the tables of a source, as the schema has them today.

    Args:
        folder: where the tables' ``.sql`` files are.
        flags: what these files may name beside the tables.

    Raises:
        SourceError: a table or column is missing, or may not be read.
    """
    found = _catalogue(connection, schema)
    for table in tables:
        _check(table, found, schema)
    bases = {table.name: _versions(table, found, schema) for table in tables}
    current = {table.name: _current(table, bases[table.name], found) for table in tables}
    rows: dict[str, Relation] = {}
    lookups: dict[bool, dict[str, sql.Composable]] = {False: dict(flags), True: dict(flags)}
    for table in tables:
        names = {placeholder: sql.Identifier(column) for placeholder, column in table.names.items()}
        template = (folder / table.adds).read_text() if table.adds else ""
        finish = {whole: Finish(template, {**known, **names, "once": ONCE[whole]}) for whole, known in lookups.items()}
        for whole, known in lookups.items():
            known[table.name] = finish[whole](current[table.name])
        versions = bases[table.name]
        if table.assumed and not found.keeps_history(table):
            versions = _file(folder / "assumed" / table.assumed, **{**current, **names}, base=versions)
        rows[table.name] = Relation(
            table,
            versions,
            moves=found.keeps_history(table) and table.key is not None,
            keyed=table.key is not None and found.has_index(table, table.key),
            finish=finish,
        )
    kept = all(found.keeps_history(t) for t in tables if t.subject is not None and t.table_name in found.columns)
    return Relations(rows, lookups, kept, _unindexed(tables, found, schema))


def span(recorded_from: date | None, recorded_to: date) -> dict[str, sql.Composable]:
    """``recorded_from`` and ``recorded_until`` of the days, as literals: COPY takes no parameters."""
    start = datetime.combine(recorded_from, time.min) if recorded_from else None
    end = datetime.combine(recorded_to, time.min) + timedelta(days=1)
    return {"recorded_from": _timestamp(start), "recorded_until": _timestamp(end)}


def load_history(connection: Connection, schema: str, layout: str) -> str | None:
    """What the newest ``vigil load`` into this schema said of its history; None where nothing was loaded."""
    if "layout" not in _catalogue(connection, schema).columns.get("loads", frozenset()):
        return None
    query = sql.SQL((HERE / "history_of_load.sql").read_text()).format(loads=sql.Identifier(schema, "loads"))
    rows = fetch(connection, query, (layout,))
    return str(rows[0][0]) if rows else None


def _catalogue(connection: Connection, schema: str) -> _Catalogue:
    columns: dict[str, set[str]] = {}
    for table, column, readable in fetch(connection, (HERE / "columns.sql").read_text(), (schema,)):
        if readable:
            columns.setdefault(table, set()).add(column)
    indexes = fetch(connection, (HERE / "indexes.sql").read_text(), (schema,))
    return _Catalogue(
        {table: frozenset(found) for table, found in columns.items()},
        {table: (rows, frozenset(found)) for table, rows, found in indexes},
    )


def _check(table: Table, found: _Catalogue, schema: str) -> None:
    if table.table_name not in found.columns:
        if table.may_be_absent:
            return
        raise SourceError(
            f"the source has no readable table {schema}.{table.table_name}",
            "check VIGIL_SOURCE and VIGIL_SOURCE_SCHEMA, load the table, or grant the extract role select on it",
        )
    needed = {*table.required} if table.subject is None or table.assumed else {*table.required, "recorded_at"}
    if missing := sorted(needed - found.columns[table.table_name]):
        raise SourceError(
            f"{schema}.{table.table_name} has no readable column {', '.join(missing)}",
            "add it, offer a view that has it, or grant the extract role select on it",
        )


def _versions(table: Table, found: _Catalogue, schema: str) -> sql.Composable:
    """All declared columns, null where absent; with recorded_at and removed where the table keeps history."""
    columns = found.columns.get(table.table_name)
    if columns is None:
        history = {} if table.subject is None or table.assumed else {"recorded_at": "timestamp", "removed": "boolean"}
        nulls = _join(_null(name, kind) for name, kind in {**table.columns, **history}.items())
        return sql.SQL("(select {} where false)").format(nulls)
    fields: list[sql.Composable] = [sql.Identifier(name) for name in table.required]
    fields += [sql.Identifier(name) if name in columns else _null(name, kind) for name, kind in table.optional.items()]
    if found.keeps_history(table):
        fields.append(sql.Identifier("recorded_at"))
        fields.append(sql.SQL("coalesce(removed, false) as removed" if "removed" in columns else "false as removed"))
    return sql.SQL("(select {} from {})").format(_join(fields), sql.Identifier(schema, table.table_name))


def _current(table: Table, versions: sql.Composable, found: _Catalogue) -> sql.Composable:
    """What other rows look up: one row each, whatever history the table keeps."""
    if not found.keeps_history(table):
        return versions
    columns = _join(sql.Identifier("t", name) for name in table.columns)
    key = sql.Identifier(str(table.key or table.subject))
    return _file(HERE / "current.sql", versions=versions, columns=columns, key=key)


def _unindexed(tables: Iterable[Table], found: _Catalogue, schema: str) -> tuple[MissingIndex, ...]:
    missing = {}
    for table in tables:
        if table.table_name not in found.indexes or not found.keeps_history(table):
            continue
        rows, _ = found.indexes[table.table_name]
        needed = {"recorded_at": ("btree", "brin"), **({table.key: ("btree",)} if table.key else {})}
        for column, methods in needed.items():
            if not found.has_index(table, column, methods):
                missing[table.table_name, column] = MissingIndex(f"{schema}.{table.table_name}", column, rows)
    return tuple(missing.values())


def _file(path: Path, **parts: sql.Composable) -> sql.Composable:
    return _relation(path.read_text(), **parts)


def _relation(template: str, **parts: sql.Composable) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(template).format(**parts))


def _timestamp(moment: datetime | None) -> sql.Composable:
    return sql.SQL("{}::timestamp").format(sql.Literal(moment.isoformat(sep=" ") if moment else "-infinity"))


def _null(name: str, kind: str) -> sql.Composable:
    return sql.SQL("null::{} as {}").format(sql.SQL(kind), sql.Identifier(name))


def _join(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(list(parts))
