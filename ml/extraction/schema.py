"""The event schema: MEDS 0.4's columns, and four that keep the second clock (docs/architecture.md)."""

from __future__ import annotations

import pyarrow as pa

EVENT_SCHEMA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),  # null: static
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.string()),
        pa.field("visit_id", pa.int64()),
        pa.field("recorded_at", pa.timestamp("us"), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("removed", pa.bool_(), nullable=False),
    ]
)

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
VISIT_END = "VISIT_END//"  # a stay over more than a day has ended; its value is its length in days
BUCKETS = 256  # fixed subject buckets: the digest's canonical order, and what shards are made of
