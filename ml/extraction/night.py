"""One night's extraction: whole recorded days after the last committed one, up to and including as_of."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg2
from psycopg2 import sql

from ml.common.db import Connection, connect, fetch
from ml.common.errors import ConfigError, RefusedError, SourceError
from ml.common.progress import Progress
from ml.extraction.lock import Check, locked
from ml.extraction.log import Partition, committed_partitions, day_path, drop_pending, write_pending
from ml.extraction.routing import check_shards
from ml.settings import Role, Settings, get_settings
from ml.sources import SourcePlan, open_source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartitionSummary:
    """What an extraction left behind. Counts only.

    Attributes:
        as_of: the day asked for.
        rows: events by kind of record.
        recorded_from: first recorded day; None: from the beginning.
        recorded_to: last recorded day.
        empty: nothing was recorded on those days, which is no fault.
        covered: a committed partition covers the day already; nothing was extracted.
        history: ``kept`` or ``assumed``.
    """

    as_of: date
    rows: dict[str, int]
    recorded_from: date | None
    recorded_to: date
    empty: bool
    covered: bool
    history: str


def extract(as_of: date) -> PartitionSummary:
    """Bring what became known since the last committed day, up to the end of ``as_of``, into a pending partition.

    A rerun replaces the pending partition; a committed one is never touched.

    Raises:
        SourceError: the source cannot be read, lacks a column, or holds nothing by as_of at all.
        ConfigError: the log was made with other shards or from another source.
        RefusedError: the day is not over, or another process writes the log.
    """
    settings = get_settings()
    check_shards(settings.shards)
    with locked("extract") as still_locked:
        committed = committed_partitions()
        _check_same_log(committed, settings)
        covering = next((partition for partition in committed if as_of <= partition.recorded_to), None)
        if covering is not None:
            log.info("%s is covered by the committed partition %s: nothing to extract", as_of, covering.name)
            return _summary(covering, as_of, covered=True)
        if as_of >= datetime.now(UTC).date():
            raise RefusedError(
                f"{as_of} is not over (UTC): rows recorded later that day would be missed", "extract it tomorrow"
            )
        try:
            return _summary(_extract(as_of, committed, settings, still_locked), as_of, covered=False)
        except psycopg2.Error as error:  # its message may quote a patient's value
            raise SourceError(
                f"the source refused a query (SQLSTATE {error.pgcode or 'unknown'})",
                "look at the source's own log; nothing was kept",
            ) from None


def last_recorded_day() -> date:
    """The newest day on which the source recorded anything but a death: where the first night of a finished
    collection of records stands.

    Raises:
        SourceError: the source cannot be read, or holds nothing.
    """
    settings = get_settings()
    with connect(Role.EXTRACT, readonly=True) as connection:
        plan = open_source(settings.source).plan(connection, settings.source_schema)
        queries = [kind.last_recorded() for kind in plan.kinds if kind.kind != "death"]
        newest: list[datetime] = [row for query in queries if (row := fetch(connection, query)[0][0]) is not None]
    if not newest:
        raise SourceError(f"schema {plan.schema} holds no records", "load them first (vigil load --help)")
    return max(newest).date()


def _extract(as_of: date, committed: Sequence[Partition], settings: Settings, still_locked: Check) -> Partition:
    from ml.extraction.corrections import batches_by_kind, waiting
    from ml.extraction.stream import read_kinds, share_snapshot
    from ml.extraction.writer import ShardWriter

    first = committed[-1].recorded_to + timedelta(days=1) if committed else None
    progress = Progress("extract")
    drop_pending(as_of)
    attempt = secrets.token_hex(4)
    directory = day_path(as_of) / attempt
    with connect(Role.EXTRACT, readonly=True, isolation="REPEATABLE READ") as connection:
        plan = open_source(settings.source).plan(connection, settings.source_schema)
        for index in plan.unindexed:
            log.warning("%s", index)
        queries = {kind.kind: kind.events(first, as_of).as_string(connection) for kind in plan.kinds}
        join = share_snapshot(connection)
        taken = waiting(committed, as_of)
        with ShardWriter(directory, settings.shards, settings.batch_rows) as writer:
            for kind_read, batch in read_kinds(queries, join):
                writer.write(kind_read, batch)
                progress.report(sum(writer.rows.values()), f"events, now {kind_read}")
            for correction in taken:
                for kind_read, batch in batches_by_kind(correction):
                    writer.write(kind_read, batch)
        for kind in plan.kinds:
            if missing := _count(connection, kind.unplaced_rows()):
                writer.unplaced[kind.kind] += missing
        if first is None and not writer.rows:
            raise SourceError(
                f"nothing in schema {plan.schema} was recorded by {as_of}",
                "check as_of and the source's dates (MIMIC's lie after 2100 until 'vigil load mimic-iv' shifts them)",
            )
        partition = Partition(
            as_of=as_of,
            recorded_from=first,
            recorded_to=as_of,
            source=_source(settings),
            history=plan.history,
            shards=settings.shards,
            attempt=attempt,
            rows={kind.kind: 0 for kind in plan.kinds} | dict(writer.rows),
            vocabularies=dict(sorted(writer.vocabularies.items())),
            removed=writer.removed,
            days=writer.days(),
            unplaced=dict(sorted(writer.unplaced.items())),
            only_later=_only_later(connection, plan, writer.rows) if first is None else (),
            unmapped=dict(sorted(writer.unmapped.items())),
            corrections={correction.name: correction.rows for correction in taken},
            files=writer.files,
        )
    still_locked()
    write_pending(partition)
    progress.report(partition.total, "events", force=True)
    _say(partition, plan)
    return partition


def _only_later(connection: Connection, plan: SourcePlan, rows: dict[str, int]) -> tuple[str, ...]:
    """Kinds that have rows in the source and none by as_of."""
    empty = [kind for kind in plan.kinds if not rows.get(kind.kind)]
    return tuple(kind.kind for kind in empty if _count(connection, kind.any_row()))


def _count(connection: Connection, query: sql.Composable) -> int:
    return int(fetch(connection, query)[0][0])


def _source(settings: Settings) -> dict[str, str]:
    return {
        "hospital": settings.hospital,
        "source": settings.source,
        "schema": settings.source_schema,
        "omop_codes": settings.omop_codes,
        "icd9_to_icd10": str(settings.icd9_to_icd10).lower(),
    }


def _check_same_log(committed: list[Partition], settings: Settings) -> None:
    if not committed:
        return
    newest = committed[-1]
    if newest.shards != settings.shards:
        raise ConfigError(
            f"the event log has {newest.shards} shards, the settings say {settings.shards}",
            f"set VIGIL_SHARDS={newest.shards}, or start a new log in another VIGIL_HOME",
        )
    changed = [name for name, value in _source(settings).items() if newest.source.get(name) != value]
    if changed:
        raise ConfigError(
            f"the event log was made with another setting of {', '.join(changed)}",
            "set it back, or start a new log in another VIGIL_HOME",
        )


def _say(partition: Partition, plan: SourcePlan) -> None:
    if partition.history == "assumed":
        log.info(
            "the source keeps no history: the time a row became known is assumed (end of visit or day), "
            "and corrections are seen from the first extraction on"
        )
    if not partition.total:
        log.info("nothing was recorded in %s up to %s: the partition is empty", plan.schema, partition.recorded_to)
    else:
        log.info("extracted %s events up to %s", f"{partition.total:,}", partition.recorded_to)


def _summary(partition: Partition, as_of: date, *, covered: bool) -> PartitionSummary:
    return PartitionSummary(
        as_of=as_of,
        rows=partition.rows,
        recorded_from=partition.recorded_from,
        recorded_to=partition.recorded_to,
        empty=partition.total == 0,
        covered=covered,
        history=partition.history,
    )
