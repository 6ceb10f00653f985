"""The expectations on rows: asked of every piece for counts, then, where they fail, for the rows at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from ml.common.progress import Progress
from ml.extraction.log import Partition
from ml.quality.expectations import Examiner, Finding, code_suite, event_suite
from ml.quality.frames import codes_frame, events_frame, pieces, read_piece
from ml.quality.quarantine import ROW, no_rows
from ml.quality.rules import CODE_SYSTEMS, ROW_RULES, ROW_TOLERANCE, ROWS_TOLERATED, code_rule
from ml.quality.verdict import Outcome, Result

EXAMPLES = 1_000  # rows written to quarantine for an expectation that blocks: the counts tell the rest
BY_SYSTEM = {code_rule(system): system for system in CODE_SYSTEMS}


@dataclass
class Tally:
    """Rows checked and at fault per (expectation, subject); rows, and those without a code, per kind of record."""

    checked: Counter[tuple[str, str]] = field(default_factory=Counter)
    at_fault: Counter[tuple[str, str]] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, subject: str, checked: int, at_fault: int) -> None:
        self.checked[name, subject] += checked
        self.at_fault[name, subject] += at_fault


def count_rows(examiner: Examiner, partition: Partition, committed: Sequence[Partition]) -> Tally:
    """Ask the row expectations of every piece, for counts alone."""
    tally, progress, done = Tally(), Progress("validate", partition.total), 0
    for shards in pieces(partition):
        piece = read_piece(partition, committed, shards)
        for kind, rows in _by_kind(piece):
            for finding in examiner.ask(events_frame(rows), event_suite(kind)):
                tally.add(finding.name, kind, finding.checked, finding.at_fault)
            tally.kinds[kind] += rows.height
            tally.unmapped[kind] += int((rows["vocabulary"] == "SOURCE").sum())
        for name, bad in _bad_codes(examiner, piece).items():
            for subject, rows in _code_subjects(name, piece):
                tally.add(name, subject, rows.height, int(rows["code"].is_in(bad).sum()))
        done += piece.height
        progress.report(done, "rows")
    return tally


def row_results(tally: Tally, *, base: bool) -> list[Result]:
    """Judge the counts."""
    results = []
    for (name, subject), checked in sorted(tally.checked.items()):
        at_fault, rule = tally.at_fault[name, subject], ROW_RULES[name]
        whole = base and name not in BY_SYSTEM and at_fault == checked
        outcome = outcome_of(at_fault, checked, whole=whole) if rule.quarantines else ("warn" if at_fault else "pass")
        results.append(Result(name, subject, outcome, checked, at_fault, rule.quarantines, rule.remedy))
    return results


def outcome_of(at_fault: int, checked: int, *, whole: bool) -> Outcome:
    """A few rows warn; many block, and so does the whole of a kind of record in the base load."""
    if not at_fault:
        return "pass"
    many = at_fault > ROWS_TOLERATED and at_fault > ROW_TOLERANCE * checked
    return "block" if many or whole else "warn"


def rows_at_fault(
    examiner: Examiner, partition: Partition, committed: Sequence[Partition], results: Sequence[Result]
) -> pl.DataFrame:
    """The rows behind failed row expectations (columns ``quarantine.ROW``): all, or examples where one blocks."""
    failed = [result for result in results if result.expectation in ROW_RULES and result.outcome != "pass"]
    frames = [no_rows()]
    for shards in pieces(partition) if failed else ():
        piece = read_piece(partition, committed, shards)
        for result in failed:
            rows = _found(examiner, piece, result)
            frames.append(_as_quarantine(rows.head(EXAMPLES) if result.outcome == "block" else rows, result))
    return pl.concat(frames)


def _found(examiner: Examiner, piece: pl.DataFrame, result: Result) -> pl.DataFrame:
    name = result.expectation
    if name in BY_SYSTEM or name == "code_present":
        rows = dict(_code_subjects(name, piece)).get(result.subject, piece.clear())
        return rows.filter(rows["code"].is_in(_bad_codes(examiner, rows)[name]))
    rows = piece.filter(piece["kind"] == result.subject)
    if result.outcome == "block":
        rows = rows.head(20 * EXAMPLES)  # listing a million rows at fault would take minutes
    if rows.is_empty():
        return rows
    suite = [expectation for expectation in event_suite(result.subject) if expectation.meta["name"] == name]
    (finding,) = examiner.ask(events_frame(rows), suite, rows=True)
    return _numbered(rows, finding)


def _by_kind(piece: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = piece.partition_by("kind", as_dict=True)
    return sorted((str(key[0]), rows) for key, rows in parts.items())


def _code_subjects(name: str, piece: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """What an expectation on codes is counted by: a code system, or each kind of record."""
    if name not in BY_SYSTEM:
        yield from _by_kind(piece)
        return
    rows = piece.filter(piece["vocabulary"] == BY_SYSTEM[name])
    if rows.height:
        yield BY_SYSTEM[name], rows


def _bad_codes(examiner: Examiner, piece: pl.DataFrame) -> dict[str, list[str]]:
    """The codes at fault, by expectation: each distinct code is looked at once."""
    codes = piece.select(pl.col("code").unique().sort()).with_row_index("row")
    if codes.is_empty():
        return {name: [] for name in ("code_present", *BY_SYSTEM)}
    findings = examiner.ask(codes_frame(codes), code_suite(), rows=True)
    return {finding.name: _numbered(codes, finding)["code"].to_list() for finding in findings}


def _numbered(frame: pl.DataFrame, finding: Finding) -> pl.DataFrame:
    return frame.filter(frame["row"].is_in(list(finding.rows)))


def _as_quarantine(rows: pl.DataFrame, result: Result) -> pl.DataFrame:
    return rows.with_columns(
        expectation=pl.lit(result.expectation),
        severity=pl.lit(result.outcome),
        event_time=pl.col("time"),
        reason=pl.lit(ROW_RULES[result.expectation].reason),
    ).select(ROW)
