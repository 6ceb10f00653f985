"""The two publications of a night: from files on the restricted side to rows for everybody."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml.common.claims import Claim
from ml.common.errors import NotFoundError, RefusedError
from ml.common.files import read_json
from ml.extraction import load_snapshot
from ml.extraction.snapshot import Snapshot
from ml.interconnections import METHOD_NAMES, matrix_path
from ml.publication.disclosure import suppress_small
from ml.publication.pseudonyms import pseudonymise
from ml.publication.releases import release
from ml.publication.types import INTERCONNECTIONS, RISK_SCORES, Origin, Release
from ml.registry import Champion, champion
from ml.scoring import combine, provenance, score_path
from ml.settings import get_settings


def publish_risk_scores(as_of: date, run_id: str, claim: Claim | None = None) -> Release:
    """Publish the champion's scores of a day under pseudonyms. Idempotent.

    The decision row behind the champion is read again here, whatever the scoring task believed.

    Args:
        run_id: of the orchestrator; kept with the release.
        claim: of the run on the day, where its pipeline takes claims.

    Raises:
        NotFoundError: there is no champion, no snapshot, or a shard was not scored.
        RefusedError: no approval that counts is behind the champion, the scores are another model's, the audit refuses
            the rows, or another publication of the day has started since.
        ConfigError: no key for pseudonyms.
    """
    snapshot, model = load_snapshot(as_of), _champion()
    files = [score_path(as_of, model.version, shard) for shard in range(snapshot.shards)]
    scores = combine(snapshot, model.version).to_arrow()
    _require_made_by(model, snapshot, files)
    facts = {"model_name": get_settings().model_name, "decision": model.decision}
    constants = {"as_of": as_of, "model_version": model.version, "snapshot_digest": snapshot.digest, **facts}
    rows = _with(scores, constants).append_column("pseudonym", pseudonymise(scores["subject_id"]))
    origin = Origin(as_of, run_id, snapshot.digest, _made_at(files), facts, model.version)
    return release(RISK_SCORES, rows, origin, {"subjects": pc.count_distinct(scores["subject_id"]).as_py()}, claim)


def _champion() -> Champion:
    found = champion()
    if found is None:
        raise NotFoundError(
            "there is no champion, so there are no scores to publish", "wait for a model to be let through"
        )
    return found


def _require_made_by(model: Champion, snapshot: Snapshot, files: list[Path]) -> None:
    """Scores carry digests of the model that made them: a version number alone could be another model's."""
    expected = provenance(snapshot, model.finetuned)
    if any(read_json(file.with_suffix(".json")) != expected for file in files):
        raise RefusedError(f"the scores of version {model.version} were made by other weights", "clear the score tasks")


def publish_interconnections(as_of: date, run_id: str, claim: Claim | None = None) -> Release:
    """Publish the interconnections of a day, every method, without small counts. Idempotent.

    Raises:
        NotFoundError: there is no snapshot, or a method was not computed.
        RefusedError: a matrix is of another snapshot, the audit refuses the rows, or another publication of the day
            has started since.
    """
    snapshot = load_snapshot(as_of)
    files = [matrix_path(method, as_of) for method in METHOD_NAMES]
    found = pa.concat_tables([_read_matrix(m, f, snapshot) for m, f in zip(METHOD_NAMES, files, strict=True)])
    kept, suppressed = suppress_small(found, get_settings().min_cell)
    rows = _with(kept, {"as_of": as_of, "snapshot_digest": snapshot.digest})
    origin = Origin(as_of, run_id, snapshot.digest, _made_at(files), {})
    return replace(release(INTERCONNECTIONS, rows, origin, {}, claim), suppressed=suppressed)


def _read_matrix(method: str, file: Path, snapshot: Snapshot) -> pa.Table:
    from ml.interconnections.matrix import InterconnectionMatrix

    matrix = InterconnectionMatrix.load(file)
    if matrix.provenance.snapshot_digest != snapshot.digest or matrix.provenance.method != method:
        raise RefusedError(
            f"the interconnections by {method} of {snapshot.as_of} are of another snapshot",
            "clear the interconnect tasks of that day",
        )
    return _with(matrix.table().replace_schema_metadata(None), {"method": method})


def _with(rows: pa.Table, constants: dict[str, object]) -> pa.Table:
    for name, value in constants.items():
        rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
    return rows


def _made_at(files: list[Path]) -> datetime:
    """When the newest of the files was written."""
    return datetime.fromtimestamp(max(file.stat().st_mtime for file in files), UTC)
