"""A snapshot as a MEDS 0.4 dataset, for tools that read the standard.

``data/<shard>.parquet``, ``metadata/codes.parquet``, ``metadata/subject_splits.parquet`` and ``metadata/dataset.json``
are the standard's; ``metadata/vigil.json`` names what went in and every file's digest. The dataset holds patients.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml.cohorts.meds_codes import OCCURRENCES, code_metadata
from ml.cohorts.meds_schema import OWN_COLUMNS, check, check_apart, read_data, write_data
from ml.cohorts.splits import SHARES, split_all
from ml.common.errors import RefusedError, VigilError
from ml.common.files import new_directory, read_json, sha256_bytes, sha256_file, write_json
from ml.common.progress import Progress
from ml.extraction import Snapshot, load_snapshot, newest_snapshot, read_view
from ml.extraction.digest import bucket_digests
from ml.extraction.schema import BUCKETS
from ml.settings import get_settings

log = logging.getLogger(__name__)

LAYOUT = 1  # raised when an export of the same snapshot would come out otherwise
MANIFEST = Path("metadata") / "vigil.json"
WORKING = re.compile(r"[a-z0-9_]{8}")  # what `new_directory` adds to the name of the folder
PROTECTED = (
    "This dataset holds patients' records, with the ids of the source: keep it inside the hospital's protected "
    "storage, and remove it when it is no longer needed."
)
NO_PLACE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EBUSY,
    errno.ENOTDIR,
    errno.EEXIST,
}
LICENSE = "not for redistribution: patients' records, under the rules of the hospital that they are from"


@dataclass(frozen=True)
class MedsExport:
    """What an export holds.

    Attributes:
        directory: the dataset's root.
        as_of: the snapshot's day.
        digest: the snapshot's digest, which the written files were found to have.
        events: rows in ``data``.
        subjects: subjects, by split.
        codes: distinct codes of the events.
        described: those of them that have a description.
        files: data files, one per shard.
        already: this very export was there; nothing was done.
    """

    directory: Path
    as_of: date
    digest: str
    events: int
    subjects: dict[str, int]
    codes: int
    described: int
    files: int
    already: bool = False


def export_meds(directory: Path, as_of: date | None = None) -> MedsExport:
    """Write a snapshot as a MEDS dataset; whole, or not at all. Memory is bounded by the largest shard.

    Args:
        directory: absent, empty, or this very export, which is then kept.
        as_of: the snapshot's day; default the newest.

    Raises:
        NotFoundError: there is no such snapshot.
        RefusedError: the directory holds something else.
        VigilError: what was written is not valid MEDS, or not what the snapshot's digest says.
    """
    snapshot = load_snapshot(as_of) if as_of else newest_snapshot()
    target = directory.resolve()  # of a link, what it points to
    inputs = _inputs(snapshot)
    try:
        if (found := _kept(target, inputs)) is not None:
            target.chmod(0o700)
            return found
        clear_abandoned(target)
        with new_directory(target) as working, _held(working):
            _write(working, snapshot, inputs)
            _kept(target, inputs)  # another export may have come first
        target.chmod(0o700)
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        raise VigilError(
            f"the export could not be written: {error.strerror}", "name a new folder where you may write, with room"
        ) from None
    return _report(target, inputs, already=False)


def _write(working: Path, snapshot: Snapshot, inputs: dict[str, Any]) -> None:
    for name in ("data", "metadata"):
        (working / name).mkdir(mode=0o700)
    write_json(working / MANIFEST, {"inputs": inputs}, mode=0o600)  # says whose a folder is that a kill leaves behind
    counts, subjects = _write_data(working / "data", snapshot)
    codes = code_metadata(counts)
    _write_table(working / "metadata" / "codes.parquet", "CodeMetadataSchema", codes)
    splits = _splits(pl.concat(subjects))
    _write_table(working / "metadata" / "subject_splits.parquet", "SubjectSplitSchema", splits)
    about = dataset_metadata(snapshot)
    check("DatasetMetadataSchema", about)
    write_json(working / "metadata" / "dataset.json", about, mode=0o600)
    in_data = codes.filter(pc.greater(codes[OCCURRENCES], 0))
    described = in_data.num_rows - in_data["description"].null_count
    names = sorted(path.relative_to(working) for path in working.rglob("*.*") if path != working / MANIFEST)
    totals = {
        "events": counts.total(),
        "subjects": {name: splits["split"].to_pylist().count(name) for name, _ in SHARES},
        "codes": len(counts),
        "described": described,
        "files": snapshot.shards,
    }
    written = {str(name): sha256_file(working / name) for name in names}
    write_json(working / MANIFEST, {"inputs": inputs, "totals": totals, "files": written}, mode=0o600)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """A lock on a folder that ends with the process: who finds it free knows that nobody writes there any more."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def clear_abandoned(target: Path) -> None:
    """Remove what killed exports to this folder left beside it: it holds patients."""
    prefix = f".{target.name}."
    for folder in sorted(target.parent.glob(".*")) if target.parent.is_dir() else ():
        ours = folder.name.startswith(prefix) and WORKING.fullmatch(folder.name.removeprefix(prefix))
        if not ours or not (folder / MANIFEST).is_file():
            continue
        try:
            with _held(folder):
                shutil.rmtree(folder)
        except BlockingIOError:
            continue  # it is being written


def _write_data(folder: Path, snapshot: Snapshot) -> tuple[Counter[str], list[pl.Series]]:
    """Write and read back each shard; the events by code, and the subjects of each shard.

    Raises:
        VigilError: the files do not have the snapshot's digest.
    """
    digests = [hashlib.sha256().digest()] * BUCKETS
    counts: Counter[str] = Counter()
    subjects: list[pl.Series] = []
    progress = Progress("meds_export", snapshot.shards)
    for shard in range(snapshot.shards):
        path = folder / f"{shard:03d}.parquet"
        write_data(path, read_view(snapshot, snapshot.as_of, shard))
        path.chmod(0o600)
        written = read_data(path)
        digests[shard :: snapshot.shards] = bucket_digests(written, range(shard, BUCKETS, snapshot.shards))
        counts.update(dict(written.group_by("code").len().iter_rows()))
        subjects.append(written["subject_id"].unique())
        progress.report(shard + 1, "shards")
    check_apart(subjects)
    if hashlib.sha256(b"".join(digests)).hexdigest() != snapshot.digest:
        raise VigilError(
            f"the event log does not give the digest of its snapshot of {snapshot.as_of}; nothing was exported",
            "the log was altered or damaged after that night: restore it from a backup",
        )
    return counts, subjects


def dataset_metadata(snapshot: Snapshot) -> dict[str, Any]:
    """The content of ``metadata/dataset.json``."""
    return {
        "dataset_name": get_settings().hospital,
        "dataset_version": f"{snapshot.as_of}-{snapshot.digest}",
        "etl_name": "vigil",
        "etl_version": version("vigil"),
        "meds_version": version("meds"),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "license": LICENSE,
        "raw_source_id_columns": [name for name in OWN_COLUMNS if name != "recorded_at"],
        "other_extension_columns": ["recorded_at"],
    }


def _splits(subjects: pl.Series) -> pa.Table:
    split = split_all(subjects.sort().to_list(), get_settings().split_salt)
    return pa.table(
        {"subject_id": pa.array(list(split), pa.int64()), "split": pa.array(list(split.values()), pa.string())}
    )


def _write_table(path: Path, schema: str, table: pa.Table) -> None:
    check(schema, table)
    pq.write_table(table, path, compression="zstd")
    path.chmod(0o600)


def _inputs(snapshot: Snapshot) -> dict[str, Any]:
    settings = get_settings()
    return {
        "hospital": settings.hospital,
        "as_of": str(snapshot.as_of),
        "digest": snapshot.digest,
        "shards": snapshot.shards,
        "split_salt": sha256_bytes(settings.split_salt.encode()),
        "meds": version("meds"),
        "vigil": version("vigil"),
        "layout": LAYOUT,
    }


def _kept(target: Path, inputs: dict[str, Any]) -> MedsExport | None:
    """The export that lies there, if it is this one and its files are as they were written; None: nothing is there.

    Raises:
        RefusedError: something else lies there.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    try:
        manifest = read_json(target / MANIFEST)
        same = manifest["inputs"] == inputs and _unharmed(target, manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        same = False
    if not same:
        raise RefusedError(
            f"{target} is not empty and does not hold this very export, whole",
            "name another folder, or remove that one first",
        )
    log.info("%s holds this export already", target)
    return _report(target, inputs, already=True)


def _unharmed(target: Path, files: Iterable[tuple[str, str]]) -> bool:
    return all(sha256_file(target / name) == digest for name, digest in files)


def _report(target: Path, inputs: dict[str, Any], *, already: bool) -> MedsExport:
    return MedsExport(
        directory=target,
        as_of=date.fromisoformat(inputs["as_of"]),
        digest=inputs["digest"],
        already=already,
        **read_json(target / MANIFEST)["totals"],
    )
