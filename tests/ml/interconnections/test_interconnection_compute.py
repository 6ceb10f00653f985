from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ml.common.errors import NotFoundError
from ml.extraction.log import Partition, write_committed
from ml.extraction.schema import EVENT_SCHEMA
from ml.extraction.snapshot import Snapshot
from ml.extraction.snapshots import save_snapshot
from ml.extraction.writer import ShardWriter
from ml.interconnections import METHOD_NAMES, compute, matrix_path
from ml.interconnections.commands import app
from ml.interconnections.matrix import MATRIX_SCHEMA, InterconnectionMatrix
from ml.settings import get_settings

DAY = date(2015, 6, 30)
PATIENTS = 400


def event(subject: int, time: datetime | None, code: str, recorded: datetime, key: str, removed: bool = False) -> dict:
    return {
        "subject_id": subject, "time": time, "code": code, "numeric_value": None, "text_value": None, "visit_id": None,
        "recorded_at": recorded, "source_key": key, "removed": removed,
    }  # fmt: skip


def hospital() -> list[dict]:
    """Diabetes before heart failure in many; one diagnosis taken back, one recorded after the day."""
    draw = np.random.default_rng(8)
    rows = []
    for subject in range(1, PATIENTS + 1):
        born = datetime(1950, 1, 1) + timedelta(days=int(draw.integers(0, 9_000)))
        start = datetime(2005, 1, 1) + timedelta(days=int(draw.integers(0, 300)))
        rows.append(event(subject, None, "GENDER//" + "FM"[subject // 2 % 2], start, f"person/{subject}/gender"))
        rows.append(event(subject, born, "MEDS_BIRTH", start, f"person/{subject}/birth"))
        codes = [("VISIT//outpatient", 0), ("VISIT//outpatient", 3_400)]
        codes += [("ICD10CM//E11.9", int(draw.integers(400, 1_500)))] if subject % 2 else []
        codes += (
            [("ICD10CM//I50.9", int(draw.integers(1_500, 3_000)))]
            if draw.random() < (0.6 if subject % 2 else 0.3)
            else []
        )
        codes += [("ICD10CM//C25.9", 700)] if subject <= 7 else []
        for number, (code, days) in enumerate(codes):
            when = start + timedelta(days=days)
            rows.append(event(subject, when, code, when, f"row/{subject}/{number}"))
    taken_back = next(row for row in rows if row["code"] == "ICD10CM//E11.9")
    rows.append(taken_back | {"recorded_at": datetime(2015, 1, 1), "removed": True})
    rows.append(event(2, datetime(2014, 1, 1), "ICD10CM//E11.9", datetime(2015, 7, 1), "row/late"))
    return rows


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Snapshot]:
    """A committed event log of two shards."""
    monkeypatch.setenv("VIGIL_HOME", str(tmp_path))
    get_settings.cache_clear()
    source = {"source": "omop", "schema": "ehr", "hospital": "test"}
    partition = Partition(DAY, None, DAY, source, "kept", 2, "attempt")
    with ShardWriter(partition.path, shards=2, batch_rows=1_000) as writer:
        writer.write("all", pa.RecordBatch.from_pylist(hospital(), schema=EVENT_SCHEMA))
    write_committed(replace(partition, files=writer.files))
    made = Snapshot(DAY, "a" * 64, (DAY.isoformat(),), {}, PATIENTS, 2)
    save_snapshot(made)
    yield made
    get_settings.cache_clear()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_gives_the_same_object_in_the_same_table(snapshot: Snapshot, method: str) -> None:
    path = compute(method, snapshot)
    assert path == matrix_path(method, DAY)
    table = pq.read_table(path)
    assert table.schema.remove_metadata() == MATRIX_SCHEMA
    (row,) = table.to_pylist()
    assert (row["source_code"], row["target_code"]) == ("ICD10CM//E11", "ICD10CM//I50")
    assert row["n_source"] == PATIENTS / 2 - 1  # the tombstone counts, what is recorded after the day does not
    about = InterconnectionMatrix.load(path).provenance
    assert (about.method, about.as_of, about.snapshot_digest) == (method, DAY, snapshot.digest)
    assert about.patients == PATIENTS
    assert about.codes_left_out == 1  # pancreatic cancer, seven patients


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_no_count_in_the_table_is_below_the_least_cell(
    snapshot: Snapshot, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = ["n_source", "n_target", "n_both"]
    for least in (5, 200):
        monkeypatch.setenv("VIGIL_MIN_CELL", str(least))
        get_settings.cache_clear()
        found = pq.read_table(compute(method, snapshot)).select(counts).to_pandas().to_numpy()
        assert (found >= least).all()
        assert len(found) > 0 or least == 200


def test_a_directed_effect_is_found_in_its_direction(snapshot: Snapshot) -> None:
    (row,) = pq.read_table(compute("relative_risk", snapshot)).to_pylist()
    assert row["directed"]
    assert row["ci_low"] > 1
    assert row["significant"]
    assert row["p_value"] <= row["p_adjusted"] < 0.05


def test_a_method_without_a_test_leaves_those_columns_empty(snapshot: Snapshot) -> None:
    (row,) = pq.read_table(compute("jaccard", snapshot)).to_pylist()
    assert [row[name] for name in ("ci_low", "ci_high", "p_value", "p_adjusted", "significant")] == [None] * 5
    assert row["weight"] == pytest.approx(row["n_both"] / (row["n_source"] + row["n_target"] - row["n_both"]))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_computing_again_gives_the_same_bytes_and_loading_the_same_matrix(snapshot: Snapshot, method: str) -> None:
    path = compute(method, snapshot)
    first = path.read_bytes()
    matrix = InterconnectionMatrix.load(path)
    path.unlink()
    compute(method, snapshot)
    assert path.read_bytes() == first
    matrix.save(path)
    assert path.read_bytes() == first
    replace(matrix, weight_meaning="other").save(path)
    assert path.read_bytes() != first


def test_dense_weights_are_symmetric_only_where_undirected(snapshot: Snapshot) -> None:
    undirected = InterconnectionMatrix.load(compute("fisher", snapshot)).dense(absent=0.0)
    directed = InterconnectionMatrix.load(compute("relative_risk", snapshot)).dense(absent=0.0)
    assert np.array_equal(undirected, undirected.T)
    assert undirected[0, 1] > 1
    assert not np.array_equal(directed, directed.T)


def test_a_failed_write_leaves_the_old_file_and_no_other(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compute("jaccard", snapshot)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        compute("jaccard", replace(snapshot, digest="b" * 64))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_unknown_method_names_those_that_exist(snapshot: Snapshot) -> None:
    with pytest.raises(NotFoundError, match="jaccard, fisher, relative_risk"):
        compute("astrology", snapshot)


def test_what_holds_no_matrix_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="run the night of that day"):
        InterconnectionMatrix.load(tmp_path / "absent.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(NotFoundError, match="no interconnection matrix"):
        InterconnectionMatrix.load(tmp_path / "other.parquet")


def test_the_command_computes_all_methods_of_the_newest_snapshot_and_tells_what_it_left_out(snapshot: Snapshot) -> None:
    result = CliRunner().invoke(app, ["compute"])
    assert result.exit_code == 0, result.output
    assert all(matrix_path(method, DAY).exists() for method in METHOD_NAMES)
    assert "too rare: 1 codes" in result.output
    assert isinstance(CliRunner().invoke(app, ["compute", "--as-of", "2001-01-01"]).exception, NotFoundError)


def test_the_registry_holds_the_methods_that_the_night_maps_over() -> None:
    from ml.interconnections.methods import METHODS

    assert tuple(METHODS) == METHOD_NAMES


def test_a_dag_file_gets_the_names_without_numba_scipy_or_polars() -> None:
    look = "import sys; print({'numba', 'scipy', 'polars', 'pyarrow'} & set(sys.modules))"
    light = "from ml.interconnections import METHOD_NAMES, compute; from ml.interconnections.commands import app; "
    outputs = [
        subprocess.run([sys.executable, "-c", code + look], capture_output=True, text=True, check=True).stdout
        for code in (light, "import ml.interconnections.methods; ")
    ]
    assert outputs[0].strip() == "set()"
    assert "numba" in outputs[1]
