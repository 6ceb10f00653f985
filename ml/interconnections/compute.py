"""From a snapshot to the file of one method. Imports nothing heavy until it computes."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ml.common.errors import NotFoundError
from ml.settings import get_settings

if TYPE_CHECKING:
    from ml.extraction.snapshot import Snapshot

METHOD_NAMES = ("jaccard", "fisher", "relative_risk")


def matrix_path(method: str, as_of: date) -> Path:
    """Where the matrix of a method lies: ``data/interconnections/<as_of>/<method>.parquet``."""
    return get_settings().data_dir / "interconnections" / as_of.isoformat() / f"{method}.parquet"


def compute(method: str, snapshot: Snapshot) -> Path:
    """Compute one method over all patients of a snapshot and save its matrix, whole file or nothing.

    Equal snapshots give equal bytes, so running twice, or after a kill, changes nothing.

    Returns:
        the Parquet file; ``InterconnectionMatrix.load`` reads it.

    Raises:
        NotFoundError: there is no method of that name.
    """
    if method not in METHOD_NAMES:
        raise NotFoundError(f"no interconnection method '{method}'", f"use one of: {', '.join(METHOD_NAMES)}")
    from ml.interconnections.cohort import load_cohort
    from ml.interconnections.methods import METHODS

    settings = get_settings()
    matrix = METHODS[method](load_cohort(snapshot, settings.min_cell), settings.min_cell)
    path = matrix_path(method, snapshot.as_of)
    matrix.save(path)
    return path
