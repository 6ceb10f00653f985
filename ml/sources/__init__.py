"""Sources: one folder per EHR schema, each a few ``.sql`` files and a declaration of the tables they read.

In: a Postgres schema in the layout of OMOP CDM or of MIMIC-IV's hosp module. Out: one query per kind of record,
whose rows are events (``ml.extraction.schema``). ``loading`` brings CSV exports into such a schema.
"""

from ml.sources.base import KindQuery, Source, SourcePlan
from ml.sources.registry import open_source

__all__ = ["KindQuery", "Source", "SourcePlan", "open_source"]
