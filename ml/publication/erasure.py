"""The right to erasure: one command, and a patient is gone from everything that Vigil keeps.

In order: the event log (which also keeps the patient away from now on), files made from it, quarantine, published
rows, a flag on the models that saw the patient, and the record that it was done. Each step finds what an earlier,
killed try has done, so the command may be run again until it succeeds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psycopg2
from upath import UPath

from ml.cohorts.splits import split_of
from ml.common.db import connect, execute, fetch
from ml.common.errors import SourceError
from ml.common.files import write_bytes
from ml.common.paths import remove
from ml.extraction.erasure import LogErasure, erase_from_log, forget_intent
from ml.publication.pseudonyms import pseudonym_of
from ml.settings import Role, get_settings

SQL = Path(__file__).parent / "sql"
DELETE_ASIDE = "delete from restricted.quarantine where subject_id = %s"
SUBJECT = "subject_id"
ERASED_PATIENTS, ERASED_AT, ERASURES = "vigil.erased_patients", "vigil.erased_at", "vigil.erasures"  # tags of a version


@dataclass(frozen=True)
class Erasure:
    """What an erasure did; counts, days, versions and digests.

    Attributes:
        erasure_id: of its rows in ``governance``.
        log_rows: versions of rows removed from the event log, over ``partitions``.
        snapshots: day → digest before and after.
        quarantined: rows removed from quarantine.
        files: files of token stores, labels, predictions and scores that were rewritten or removed.
        releases: release → published rows removed.
        models: versions of the registered model that saw the patient → split it was in.
    """

    erasure_id: str
    log_rows: int
    partitions: int
    snapshots: dict[date, tuple[str, str]]
    quarantined: int
    files: int
    releases: dict[str, int] = field(default_factory=dict)
    models: dict[int, str] = field(default_factory=dict)


def erase(subject_id: int, reason: str, erased_by: str) -> Erasure:
    """Erase a patient.

    Raises:
        NotFoundError: the event log does not hold the patient.
        RefusedError: another process writes the event log.
        SourceError: a database cannot be reached; run it again.
        TrackingError: MLflow cannot be reached; run it again.
    """
    log = erase_from_log(subject_id)
    files = sum(_erase_from_file(path, subject_id) for path in _files(get_settings().data_dir))
    try:
        with connect(Role.QUALITY) as connection:
            quarantined = execute(connection, DELETE_ASIDE, (subject_id,))
        with connect(Role.PUBLISH) as connection:
            query = (SQL / "erase_patient.sql").read_text()
            releases = {str(r): int(n) for r, n in fetch(connection, query, {"pseudonym": pseudonym_of(subject_id)})}
        models = _flag_models(subject_id, log)
        found = Erasure(
            log.erasure_id, log.rows, len(log.partitions), log.snapshots, quarantined, files, releases, models
        )
        _record(found, reason, erased_by)
    except psycopg2.Error as error:  # its message may quote a row
        raise SourceError(
            f"Vigil's database refused a statement of the erasure (SQLSTATE {error.pgcode or 'unknown'})",
            "check its migrations and grants (vigil db migrate), then run the command again to complete the erasure",
        ) from None
    forget_intent(subject_id)
    return found


def _files(data: Path) -> Iterator[Path]:
    """Everything made from patients outside the event log that names them one by one."""
    log = data / "event_log"
    for path in sorted(data.rglob("*")):
        if log not in path.parents and path.is_file() and path.name.endswith((".parquet", "subjects.npy")):
            yield path


def _erase_from_file(path: Path, subject_id: int) -> bool:
    """Rewrite a table without the subject; remove a run's token stores, unfinished ones too, where one holds it: the
    next use makes them anew."""
    if not path.exists():  # gone with its run's token stores
        return False
    if path.suffix == ".npy":
        held = bool((np.load(path, mmap_mode="r") == subject_id).any())
        if held:
            remove(UPath(next(folder for folder in path.parents if folder.name == "sequences")))
        return held
    if SUBJECT not in pl.read_parquet_schema(path):
        return False
    rows = pl.read_parquet(path)
    kept = rows.filter(pl.col(SUBJECT) != subject_id)
    if kept.height == rows.height:
        return False
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(kept.to_arrow().cast(pq.read_schema(path)), buffer)
    write_bytes(path, buffer.getvalue(), path.stat().st_mode & 0o777)
    return True


def _flag_models(subject_id: int, log: LogErasure) -> dict[int, str]:
    """Tag every registered version whose snapshot held the subject."""
    from ml.registry.tracking import all_versions, connected

    split = split_of(subject_id, get_settings().split_salt)
    flagged: dict[int, str] = {}
    with connected() as client:
        for model in all_versions(client):
            if date.fromisoformat(model.name[:10]) < log.first_recorded:
                continue
            version, name = str(model.version), get_settings().model_name
            tags = client.get_model_version(name, version).tags
            erasures = sorted({*filter(None, tags.get(ERASURES, "").split(",")), log.erasure_id})
            client.set_model_version_tag(name, version, ERASURES, ",".join(erasures))
            client.set_model_version_tag(name, version, ERASED_PATIENTS, str(len(erasures)))
            client.set_model_version_tag(name, version, ERASED_AT, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
            flagged[model.version] = split
    return flagged


def _record(found: Erasure, reason: str, erased_by: str) -> None:
    header: dict[str, Any] = {
        "erasure_id": found.erasure_id,
        "erased_by": erased_by,
        "reason": reason,
        "log_rows": found.log_rows,
        "partitions": found.partitions,
        "published": sum(found.releases.values()),
        "files": found.files,
    }
    with connect(Role.GOVERN) as connection:
        for name, rows in (
            ("erasure", [header]),
            ("erased_snapshot", [{"as_of": d, "old": o, "new": n} for d, (o, n) in found.snapshots.items()]),
            ("erased_release", [{"release_id": r, "rows": n} for r, n in found.releases.items()]),
            ("erased_model", [{"version": v, "split": s} for v, s in found.models.items()]),
        ):
            statement = (SQL / f"record_{name}.sql").read_text()
            common = {"erasure_id": found.erasure_id, "model": get_settings().model_name}
            for row in rows:
                execute(connection, statement, {**common, **row})


def as_json(found: Erasure) -> dict[str, Any]:
    """For people's scripts: days as text."""
    snapshots = {str(day): {"old": old, "new": new} for day, (old, new) in found.snapshots.items()}
    return {**asdict(found), "snapshots": snapshots}
