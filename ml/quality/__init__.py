"""Quality: Great Expectations over a pending partition, before anything is committed.

In: the pending partition of a day. Out: ``verdict.json`` beside it (counts only), rows at fault in
``restricted.quarantine``, and ``quarantine.parquet``, the keys that the view leaves out. A block raises QualityError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml.quality.verdict import Result, Verdict

if TYPE_CHECKING:
    from ml.quality.validation import validate

__all__ = ["Result", "Verdict", "validate"]


def __getattr__(name: str) -> Any:
    if name != "validate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ml.quality.validation import validate

    return validate
