"""Sources: one folder per EHR schema, each a few ``.sql`` files and a declaration of the tables they read.

In: a Postgres schema in the layout of OMOP CDM, of MIMIC-IV's hosp module, of a loaded MEDS dataset, or of a folder of
your own (docs/how-to/add-a-source.md). Out: one query per kind of record, whose rows are events
(``ml.extraction.schema``). ``loading`` brings CSV exports and MEDS datasets into such a schema; ``mapping`` maps codes
of an old vocabulary to a newer one.
"""

from ml.sources.base import KindQuery, Source, SourcePlan, SqlSource
from ml.sources.mapping import CodeMapping, code_mapping
from ml.sources.registry import open_source
from ml.sources.relations import MissingIndex
from ml.sources.tables import Table

__all__ = [
    "CodeMapping",
    "KindQuery",
    "MissingIndex",
    "Source",
    "SourcePlan",
    "SqlSource",
    "Table",
    "code_mapping",
    "open_source",
]
