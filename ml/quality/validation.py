"""``validate``: ask every expectation, judge, set rows at fault aside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date

from ml.common.errors import NotFoundError, QualityError
from ml.extraction.lock import locked
from ml.extraction.log import QUARANTINE, VERDICT, Partition, committed_partitions, pending_partition
from ml.quality.rules import ROW_RULES
from ml.quality.verdict import Result, Verdict, read_verdict, write_verdict

log = logging.getLogger(__name__)


def validate(as_of: date) -> Verdict:
    """Judge the pending partition of a day; a committed day keeps the verdict it has.

    Raises:
        QualityError: an expectation of severity block failed. ``verdict.json`` says so too; nothing is committed.
        NotFoundError: there is no pending partition.
        RefusedError: another process writes the event log.
        SourceError: the database of the quarantine cannot be reached.
    """
    with locked("validate"):
        committed = committed_partitions()
        covering = next((partition for partition in committed if as_of <= partition.recorded_to), None)
        if covering is not None:
            return read_verdict(covering)
        partition = pending_partition(as_of)
        if partition is None:
            raise NotFoundError(f"there is no pending partition of {as_of}", "extract that day first")
        for name in (VERDICT, QUARANTINE):  # of an earlier try
            (partition.path / name).unlink(missing_ok=True)
        verdict = _judge(partition, committed) if partition.total else _empty(partition)
        write_verdict(partition, verdict)
    _say(verdict)
    return verdict


def _empty(partition: Partition) -> Verdict:
    from ml.quality.quarantine import no_rows, write_rows

    write_rows(partition.as_of, no_rows())
    return Verdict(partition.as_of, passed=True, empty=True, rows=0, quarantined=0)


def _judge(partition: Partition, committed: Sequence[Partition]) -> Verdict:
    from ml.quality.aggregates import ask_aggregates, ask_schema
    from ml.quality.counting import count_rows, row_results, rows_at_fault
    from ml.quality.expectations import Examiner
    from ml.quality.quarantine import write_keys, write_rows

    examiner = Examiner()
    schema = ask_schema(examiner, partition)
    if schema.outcome == "block":  # the rows cannot even be read
        return Verdict(partition.as_of, False, False, partition.total, 0, (schema,))
    tally = count_rows(examiner, partition, committed)
    results = [schema, *row_results(tally, base=partition.recorded_from is None)]
    results += ask_aggregates(examiner, partition, committed, tally)
    rows = rows_at_fault(examiner, partition, committed, results)
    write_rows(partition.as_of, rows)
    left_out = [name for name, rule in ROW_RULES.items() if rule.quarantines]
    quarantined = write_keys(partition.path, rows.filter(rows["expectation"].is_in(left_out)))
    passed = all(result.outcome != "block" for result in results)
    return Verdict(partition.as_of, passed, False, partition.total, quarantined, tuple(results))


def _say(verdict: Verdict) -> None:
    if verdict.empty:
        log.info("the partition of %s is empty: nothing to judge, it passes", verdict.as_of)
        return
    for result in verdict.warnings:
        log.warning("quality warns: %s", _sentence(result))
    if verdict.blocks:
        first, more = verdict.blocks[0], len(verdict.blocks) - 1
        raise QualityError(
            f"quality blocks {verdict.as_of}: {_sentence(first)}{f', and {more} more' if more else ''}",
            f"{first.remedy}; details in verdict.json and restricted.quarantine, nothing was committed",
        )
    log.info("quality passed: %s rows, %s set aside", f"{verdict.rows:,}", f"{verdict.quarantined:,}")


def _sentence(result: Result) -> str:
    return f"{result.expectation} fails on {result.at_fault:,} of {result.checked:,} in {result.subject}"
