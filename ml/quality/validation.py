"""``validate``: ask every expectation, judge, set rows at fault aside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date

from ml.common.errors import NotFoundError, QualityError
from ml.extraction.lock import locked
from ml.extraction.log import QUARANTINE, VERDICT, Partition, committed_partitions, pending_partition
from ml.quality.rules import REFERENCE_DAYS, ROW_RULES, VOLUME_DAYS
from ml.quality.verdict import Drift, Result, Verdict, read_verdict, write_verdict

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
        verdict = _judge(partition, committed) if partition.total else _empty(partition, committed)
        write_verdict(partition, verdict)
    _say(verdict)
    return verdict


def _empty(partition: Partition, committed: Sequence[Partition]) -> Verdict:
    """An empty night passes; where the nights before were not empty, it warns. No row is there to be asked of."""
    from ml.quality.aggregates import volume_measures
    from ml.quality.drift import measure_drift
    from ml.quality.quarantine import no_rows, write_rows

    write_rows(partition.as_of, no_rows())
    drift = measure_drift(partition, committed)
    measures = volume_measures(partition, committed, drift)
    results = tuple(measure.result(failed=measure.value > measure.limit) for measure in measures)
    return Verdict(partition.as_of, True, True, 0, 0, results, drift)


def _judge(partition: Partition, committed: Sequence[Partition]) -> Verdict:
    from ml.quality.aggregates import ask_aggregates, ask_schema, measures_of
    from ml.quality.counting import count_rows, row_results, rows_at_fault
    from ml.quality.drift import measure_drift
    from ml.quality.expectations import Examiner
    from ml.quality.quarantine import write_keys, write_rows

    examiner = Examiner()
    schema = ask_schema(examiner, partition)
    if schema.outcome == "block":  # the rows cannot even be read
        return Verdict(partition.as_of, False, False, partition.total, 0, (schema,))
    tally, drift = count_rows(examiner, partition, committed), measure_drift(partition, committed)
    results = [schema, *row_results(tally, base=partition.recorded_from is None)]
    results += ask_aggregates(examiner, measures_of(partition, committed, tally, drift))
    rows = rows_at_fault(examiner, partition, committed, results)
    write_rows(partition.as_of, rows)
    left_out = [name for name, rule in ROW_RULES.items() if rule.quarantines]
    quarantined = write_keys(partition.path, rows.filter(rows["expectation"].is_in(left_out)))
    passed = all(result.outcome != "block" for result in results)
    return Verdict(partition.as_of, passed, False, partition.total, quarantined, tuple(results), drift)


def _say(verdict: Verdict) -> None:
    for result in verdict.warnings:
        log.warning("quality warns: %s", _sentence(result))
    if verdict.drift is not None:
        _say_drift(verdict.drift)
    if verdict.empty:
        log.info("the partition of %s is empty: no row to judge, it passes", verdict.as_of)
        return
    if verdict.blocks:
        first, more = verdict.blocks[0], len(verdict.blocks) - 1
        raise QualityError(
            f"quality blocks {verdict.as_of}: {_sentence(first)}{f', and {more} more' if more else ''}",
            f"{first.remedy}; details in verdict.json and restricted.quarantine, nothing was committed",
        )
    log.info("quality passed: %s rows, %s set aside", f"{verdict.rows:,}", f"{verdict.quarantined:,}")


def _say_drift(drift: Drift) -> None:
    if not drift.recent_from:
        log.info("a base load has no nights before it: neither its volumes nor its codes are compared")
        return
    if not any(volume.expected is not None for volume in drift.volumes):
        log.info("volumes of kinds of record are not judged yet: fewer than %s trailing days", VOLUME_DAYS)
    if drift.reference_days < REFERENCE_DAYS:
        log.info(
            "code drift is not judged yet: %s of %s days before the trailing week", drift.reference_days, REFERENCE_DAYS
        )
    for kind in drift.kinds:
        if kind.new_codes or kind.vanished_codes:
            log.info(
                "codes of %s: %s new, %s vanished; see verdict.json", kind.kind, kind.new_codes, kind.vanished_codes
            )


def _sentence(result: Result) -> str:
    return f"{result.expectation} fails on {result.at_fault:,} of {result.checked:,} in {result.subject}"
