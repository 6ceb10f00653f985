"""Great Expectations: the suites, and what a run of one says. Importing this module costs ten seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

# Before the import: its own start-up logs two hundred lines, and it would call home.
logging.getLogger("great_expectations").setLevel(logging.WARNING)
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx  # noqa: E402
import great_expectations.expectations as gxe  # noqa: E402

logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # the import sets it to INFO

from ml.quality.rules import CODE, CODE_SYSTEMS, code_rule  # noqa: E402
from ml.quality.suites import suite_of  # noqa: E402

MAX_FLOAT32 = 3.4028235e38
COUNTS = {"result_format": "BASIC", "exclude_unexpected_values": True, "partial_unexpected_count": 0}
ROWS = {"result_format": "COMPLETE", "exclude_unexpected_values": True, "unexpected_index_column_names": ["row"]}


@dataclass(frozen=True)
class Finding:
    """What one expectation said. ``rows``: the ``row`` values at fault, where asked for."""

    name: str
    success: bool
    checked: int
    at_fault: int
    rows: tuple[int, ...] = ()


class Examiner:
    """Runs suites over pandas frames in an ephemeral context; nothing is stored, no value leaves."""

    def __init__(self) -> None:
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        self._definition = (
            self._context.data_sources.add_pandas("partition")
            .add_dataframe_asset("frame")
            .add_batch_definition_whole_dataframe("whole")
        )

    def ask(self, frame: pd.DataFrame, suite: Iterable[gxe.Expectation], *, rows: bool = False) -> list[Finding]:
        """Ask a suite of a frame."""
        expectations = gx.ExpectationSuite(name="suite", expectations=list(suite))
        batch = self._definition.get_batch(batch_parameters={"dataframe": frame})
        report = batch.validate(expectations, result_format=ROWS if rows else COUNTS)
        return [_finding(result) for result in report.results]


def event_suite(kind: str) -> list[gxe.Expectation]:
    """On each row of a kind of record: what ``suites`` lists for it."""
    wanted = suite_of(kind).rows
    return [expectation for expectation in _event_expectations() if expectation.meta["name"] in wanted]


def _event_expectations() -> list[gxe.Expectation]:
    pair = gxe.ExpectColumnPairValuesAToBeGreaterThanB
    skip = "either_value_is_missing"
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="time_if_needed", meta={"name": "time_present"}),
        _pair(pair, "recorded_end", "time", skip, "not_after_recorded"),
        _pair(pair, "time", "birth", skip, "not_before_birth"),
        _pair(pair, "death_end", "time", skip, "not_after_death"),
        _pair(pair, "time", "oldest_birth", skip, "plausible_birth"),
        gxe.ExpectColumnValuesToBeBetween(
            column="number", min_value=-MAX_FLOAT32, max_value=MAX_FLOAT32, meta={"name": "numeric_finite"}
        ),
        gxe.ExpectCompoundColumnsToBeUnique(
            column_list=["subject_id", "key", "recorded_at"], meta={"name": "unique_version"}
        ),
    ]


def _pair(expectation: Any, larger: str, smaller: str, skip: str, name: str) -> gxe.Expectation:
    return expectation(column_A=larger, column_B=smaller, or_equal=True, ignore_row_if=skip, meta={"name": name})


def code_suite() -> list[gxe.Expectation]:
    """On each distinct code: column ``code`` holds all, a column per code system its own."""
    suite = [gxe.ExpectColumnValuesToMatchRegex(column="code", regex=CODE, meta={"name": "code_present"})]
    for system, regex in CODE_SYSTEMS.items():
        name = code_rule(system)
        suite.append(gxe.ExpectColumnValuesToMatchRegex(column=system, regex=regex, meta={"name": name}))
    return suite


def schema_suite(columns: list[str]) -> list[gxe.Expectation]:
    """On the columns of the partition's files."""
    return [gxe.ExpectTableColumnsToMatchSet(column_set=columns, exact_match=True, meta={"name": "columns"})]


def aggregate_suite(limits: Mapping[str, float]) -> list[gxe.Expectation]:
    """On a row of aggregates: each column is at most its limit. The column's name is the expectation's."""
    return [
        gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0, max_value=limit, meta={"name": name})
        for name, limit in limits.items()
    ]


def _finding(result: Any) -> Finding:
    name = str(result.expectation_config.meta["name"])
    if _raised(result.exception_info):
        raise RuntimeError(f"expectation {name} could not be computed")
    found: dict[str, Any] = result.result
    indices = found.get("unexpected_index_list") or []
    return Finding(
        name=name,
        success=bool(result.success),
        checked=int(found.get("element_count", 0)) - int(found.get("missing_count") or 0),
        at_fault=int(found.get("unexpected_count", 0 if result.success else 1)),
        rows=tuple(row for entry in indices for row in _numbers(entry["row"])),
    )


def _raised(info: dict[str, Any]) -> bool:
    """Whether an expectation raised; the info is either one record or one per metric."""
    records = [info] if "raised_exception" in info else info.values()
    return any(record.get("raised_exception") for record in records if isinstance(record, dict))


def _numbers(value: Any) -> list[int]:
    return [int(number) for number in value] if isinstance(value, list | tuple) else [int(value)]
