"""A MEDS dataset in Postgres, as ``vigil load meds`` leaves it: one table of events, one kind of record.

Quality counts its rows by the first part of ``source_key``: ``events``, or, of an export of Vigil, the kinds of record
of the source that it was made from.
"""

from pathlib import Path

from ml.sources.base import SqlSource
from ml.sources.tables import Table

MEDS = SqlSource(
    name="meds",
    folder=Path(__file__).parent,
    tables=(
        Table(
            "meds_events",
            required={
                "subject_id": "bigint",
                "time": "timestamp",
                "code": "text",
                "numeric_value": "real",
                "text_value": "text",
                "visit_id": "bigint",
                "source_key": "text",
            },
            subject="subject_id",
        ),
    ),
    kinds={"events": "meds_events"},
)
