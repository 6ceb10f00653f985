"""Disease interconnections: which diagnoses go together, and which comes after which.

In comes a snapshot: the view of every shard at the snapshot's day, all patients. Out goes one
``InterconnectionMatrix`` per method, whatever the method: codes, weights, directed or not, what a weight means,
where it comes from; saved as ``data/interconnections/<as_of>/<method>.parquet``.

Importing this package is cheap, because a DAG file maps over ``METHOD_NAMES``: numba, scipy and polars are imported
when something is computed.
"""

from ml.interconnections.compute import METHOD_NAMES, compute, matrix_path

__all__ = ["METHOD_NAMES", "compute", "matrix_path"]
