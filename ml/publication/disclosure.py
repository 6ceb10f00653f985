"""Disclosure control: no published count of people is below the threshold."""

from __future__ import annotations

from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

COUNTS = ("n_source", "n_target", "n_both")


def suppress_small(rows: pa.Table, least: int) -> tuple[pa.Table, int]:
    """Keep the rows whose every count is at least ``least``.

    The whole row goes, its weight, interval and p-value with it: they are functions of the count.
    A missing count is a small one.

    Returns:
        the rows kept, and how many went.
    """
    large = [pc.fill_null(pc.greater_equal(rows[name], least), False) for name in COUNTS]
    kept = rows.filter(reduce(pc.and_, large))
    return kept, rows.num_rows - kept.num_rows
