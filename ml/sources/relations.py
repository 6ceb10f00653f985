"""From declared tables to relations that fit the schema at hand.

A relation has all declared columns whatever the table has, plus ``recorded_at`` and ``removed`` where it holds
patients. A record that a later version gives to another person is taken back from the earlier one by a tombstone of
its own, because the log is split by person and nobody else could see the move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from psycopg2 import sql

from ml.common.db import Connection, fetch
from ml.common.errors import SourceError
from ml.sources.base import Table

# The visible columns of a schema. pg_attribute rather than information_schema.columns, which hides what a role may not
# read and would call it missing.
COLUMNS = """
select c.relname, a.attname,
       has_schema_privilege(n.oid, 'usage') and has_column_privilege(c.oid, a.attnum, 'select')
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = %s and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""

LOADED_HISTORY = "select history from {} where layout = %s order by loaded_at desc limit 1"

MOVED = """
(select {columns}, t.recorded_at, t.removed from {base} t
 union all
 select distinct {moved_columns}, t.recorded_at, true
 from {base} t
 join {base} o on o.{key} = t.{key} and o.recorded_at < t.recorded_at and o.{subject} <> t.{subject}
 where {narrowed})
"""
# A night's few rows find their earlier versions by the key's index. Where all rows are read at once, joining the table
# with itself would cost more than all the rest; to find the few keys that ever changed hands is one pass.
CHANGED_HANDS = "t.{key} in (select {key} from {base} c group by {key} having min({subject}) <> max({subject}))"


@dataclass(frozen=True)
class Relations:
    """A relation per table, by name.

    Attributes:
        nightly: for a query that takes the rows of some days.
        whole: for one that takes all rows.
        kept: whether every table with patients keeps history.
    """

    nightly: dict[str, sql.Composable]
    whole: dict[str, sql.Composable]
    kept: bool

    def with_names(self, more: Mapping[str, sql.Composable]) -> Relations:
        """The same, and further names for the queries."""
        return replace(self, nightly={**self.nightly, **more}, whole={**self.whole, **more})


def build_relations(
    connection: Connection, schema: str, tables: tuple[Table, ...], folder: Path, derived: tuple[str, ...] = ()
) -> Relations:
    """The relations of a source's tables.

    Raises:
        SourceError: a table or column is missing, or may not be read.
    """
    present = _present(connection, schema)
    for table in tables:
        _check(table, present, schema)
    bases = {table.name: _base(table, present, schema) for table in tables}
    columns = {table.name: present.get(table.table_name, frozenset()) for table in tables}
    nightly, whole = (
        {table.name: _with_history(table, columns[table.name], bases, folder, whole=whole) for table in tables}
        for whole in (False, True)
    )
    kept = all(
        "recorded_at" in present[table.table_name]
        for table in tables
        if table.assumed is not None and table.table_name in present
    )
    made = {name: sql.SQL((folder / "derived" / f"{name}.sql").read_text()).format(**bases) for name in derived}
    return Relations(nightly, whole, kept).with_names(made)


def load_history(connection: Connection, schema: str, layout: str) -> str | None:
    """What the newest ``vigil load`` into this schema said of its history; None where nothing was loaded."""
    if "layout" not in _present(connection, schema).get("loads", frozenset()):
        return None
    query = sql.SQL(LOADED_HISTORY).format(sql.Identifier(schema, "loads"))
    rows = fetch(connection, query, (layout,))
    return str(rows[0][0]) if rows else None


def _present(connection: Connection, schema: str) -> dict[str, frozenset[str]]:
    columns: dict[str, set[str]] = {}
    for table, column, readable in fetch(connection, COLUMNS, (schema,)):
        if readable:
            columns.setdefault(table, set()).add(column)
    return {table: frozenset(found) for table, found in columns.items()}


def _check(table: Table, present: Mapping[str, frozenset[str]], schema: str) -> None:
    if table.table_name not in present:
        if table.may_be_absent:
            return
        raise SourceError(
            f"the source has no readable table {schema}.{table.table_name}",
            "check VIGIL_SOURCE and VIGIL_SOURCE_SCHEMA, load the table, or grant the extract role select on it",
        )
    missing = sorted(set(table.required) - present[table.table_name])
    if missing:
        raise SourceError(
            f"{schema}.{table.table_name} has no readable column {', '.join(missing)}",
            "add it, offer a view that has it, or grant the extract role select on it",
        )


def _base(table: Table, present: Mapping[str, frozenset[str]], schema: str) -> sql.Composable:
    """All declared columns, null where absent."""
    columns = present.get(table.table_name)
    if columns is None:
        nulls = _join(_null(name, kind) for name, kind in {**table.required, **table.optional}.items())
        return sql.SQL("(select {} where false)").format(nulls)
    fields: list[sql.Composable] = [sql.Identifier(name) for name in table.required]
    fields += [sql.Identifier(name) if name in columns else _null(name, kind) for name, kind in table.optional.items()]
    if table.assumed is not None and "recorded_at" in columns:
        fields.append(sql.Identifier("recorded_at"))
        fields.append(sql.SQL("coalesce(removed, false) as removed" if "removed" in columns else "false as removed"))
    return sql.SQL("(select {} from {})").format(_join(fields), sql.Identifier(schema, table.table_name))


def _with_history(
    table: Table, columns: frozenset[str], bases: Mapping[str, sql.Composable], folder: Path, *, whole: bool
) -> sql.Composable:
    if table.assumed is None:
        return bases[table.name]
    if "recorded_at" not in columns:
        template = sql.SQL((folder / "assumed" / table.assumed).read_text())
        key = sql.Identifier(table.key or table.subject)
        date_column = sql.Identifier(next((name for name in table.required if name.endswith("_date")), ""))
        return sql.SQL("({})").format(template.format(**bases, base=bases[table.name], key=key, date=date_column))
    if table.key is None:
        return bases[table.name]
    names = [*table.required, *table.optional]
    key, subject, base = sql.Identifier(table.key), sql.Identifier(table.subject), bases[table.name]
    narrowed = sql.SQL(CHANGED_HANDS).format(key=key, subject=subject, base=base) if whole else sql.SQL("true")
    return sql.SQL(MOVED).format(
        base=base,
        narrowed=narrowed,
        columns=_join(sql.Identifier("t", name) for name in names),
        moved_columns=_join(sql.Identifier("o" if name == table.subject else "t", name) for name in names),
        key=key,
        subject=subject,
    )


def _null(name: str, kind: str) -> sql.Composable:
    return sql.SQL("null::{} as {}").format(sql.SQL(kind), sql.Identifier(name))


def _join(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(list(parts))
