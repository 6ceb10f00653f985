"""Extraction: Postgres → event log → snapshot.

In: a source (``ml.sources``). Out: an event log of Parquet partitions, one per extraction and sharded by subject, and
per day a ``Snapshot`` whose view at any day up to it ``read_view`` gives. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml.extraction.snapshot import Snapshot

if TYPE_CHECKING:
    from ml.extraction.commit import commit_snapshot
    from ml.extraction.night import PartitionSummary, extract, last_recorded_day
    from ml.extraction.snapshots import load_snapshot, newest_snapshot
    from ml.extraction.view import read_view

_HOMES = {
    "PartitionSummary": "night",
    "commit_snapshot": "commit",
    "extract": "night",
    "last_recorded_day": "night",
    "load_snapshot": "snapshots",
    "newest_snapshot": "snapshots",
    "read_view": "view",
}

__all__ = [
    "PartitionSummary",
    "Snapshot",
    "commit_snapshot",
    "extract",
    "last_recorded_day",
    "load_snapshot",
    "newest_snapshot",
    "read_view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
