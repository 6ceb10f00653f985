"""A snapshot as a MEDS dataset: valid by the standard's own schemas, the same when read back, and read by others."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import meds
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ml.cohorts import eligible, load_task, make_labels, open_run, prediction_time, read_labels, split_all
from ml.cohorts.export_commands import app
from ml.cohorts.meds_codes import code_metadata
from ml.cohorts.meds_export import MANIFEST, PROTECTED, MedsExport, export_meds
from ml.cohorts.meds_schema import check, check_apart, check_order, data_schema, read_data, write_data
from ml.common.errors import NotFoundError, RefusedError, VigilError
from ml.extraction import Snapshot, read_view
from ml.extraction.digest import bucket_digests
from ml.extraction.schema import BUCKETS
from ml.extraction.view import COLUMNS, ORDER
from ml.settings import Settings
from tests.ml import small_hospital
from tests.ml.synthetic_log import END, as_events, commit, deployment, event, make_events, person

INDEX_DAY = END - timedelta(days=365)
VISIT = "VISIT//outpatient"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Exported:
    home: Path
    snapshot: Snapshot
    done: MedsExport

    @property
    def files(self) -> list[Path]:
        return sorted((self.done.directory / "data").glob("*.parquet"))


def digest_of(events: pl.DataFrame) -> str:
    return hashlib.sha256(b"".join(bucket_digests(events.sort(ORDER), range(BUCKETS)))).hexdigest()


def commit_true(events: pl.DataFrame, shards: int = 2, as_of: date = END) -> Snapshot:
    """A snapshot whose digest is that of its events."""
    return commit(events, shards, as_of, digest_of(events))


def with_visits(events: pl.DataFrame) -> pl.DataFrame:
    """A visit at the prediction time of each subject eligible for heart failure, with an id and a text."""
    at = prediction_time(INDEX_DAY)
    scope = eligible(events.filter(pl.col("recorded_at") < at), INDEX_DAY, load_task("heart_failure"))
    visits = scope.filter("eligible").select(
        "subject_id",
        time=pl.lit(at),
        code=pl.lit(VISIT),
        numeric_value=pl.lit(None),
        text_value=pl.format("room {} · größer", "subject_id"),
        visit_id=pl.col("subject_id") * 10,
        recorded_at=pl.lit(at),
        source_key=pl.format("visit/{}", "subject_id"),
        removed=pl.lit(False),
    )
    typed = visits.select(pl.col(name).cast(kind) for name, kind in COLUMNS.items())
    return pl.concat([events, typed]).sort(ORDER)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    home = tmp_path_factory.mktemp("exported")
    with deployment(home / "vigil", index_days="2", tasks='["heart_failure"]'):
        snapshot = commit_true(with_visits(make_events(300, 30)))
        yield Exported(home, snapshot, export_meds(home / "meds"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with deployment(tmp_path / "vigil"):
        yield tmp_path


def two_people() -> pl.DataFrame:
    return as_events(pl.concat([person(0), event(0, "ICD10CM//I50.9", "2023-01-10"), person(1, sex="M")]))


def test_every_file_is_valid_by_the_standards_own_schemas(exported: Exported) -> None:
    root = exported.done.directory
    assert len(exported.files) == 2
    for file in exported.files:
        meds.DataSchema.validate(pq.read_table(file))
        assert pq.read_schema(file).names == [*meds.DataSchema.columns(), "visit_id", "recorded_at", "source_key"]
    meds.CodeMetadataSchema.validate(pq.read_table(root / meds.code_metadata_filepath))
    meds.SubjectSplitSchema.validate(pq.read_table(root / meds.subject_splits_filepath))
    about = json.loads((root / meds.dataset_metadata_filepath).read_text())
    meds.DatasetMetadataSchema.validate(about)
    assert about["dataset_version"] == f"{END}-{exported.snapshot.digest}"
    assert about["meds_version"].startswith("0.4")


def test_the_export_reads_back_to_the_digest_of_the_snapshot(exported: Exported) -> None:
    for shard, file in enumerate(exported.files):
        ours = range(shard, BUCKETS, 2)
        view = read_view(exported.snapshot, END, shard)
        assert bucket_digests(read_data(file), ours) == bucket_digests(view, ours)
    whole = pl.concat([read_data(file) for file in exported.files])
    assert digest_of(whole) == exported.snapshot.digest
    assert digest_of(whole.with_columns(visit_id=pl.lit(1))) != exported.snapshot.digest


def test_codes_and_splits_cover_the_events(exported: Exported) -> None:
    root = exported.done.directory
    events = pl.concat([pl.read_parquet(file) for file in exported.files])
    codes = pl.read_parquet(root / "metadata/codes.parquet")
    counted = events.group_by("code").agg(n=pl.len().cast(pl.Int64)).sort("code")
    named = codes.filter(pl.col("code/n_occurrences") > 0).select("code", n="code/n_occurrences")
    assert named.equals(counted)
    assert set(codes["parent_codes"].explode().drop_nulls()) <= set(codes["code"])
    splits = dict(pl.read_parquet(root / "metadata/subject_splits.parquet").iter_rows())
    assert splits == split_all(events["subject_id"].unique().to_list(), "vigil-split-1")
    assert exported.done.events == events.height
    assert sum(exported.done.subjects.values()) == len(splits) == 300


def test_only_the_owner_may_read_an_export(exported: Exported) -> None:
    root = exported.done.directory
    assert {path.stat().st_mode & 0o777 for path in [root, *root.rglob("*")] if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*") if path.is_file()} == {0o600}


def test_aces_gives_vigils_labels_on_the_exported_dataset(exported: Exported) -> None:
    """The shipped task file, as it is; only its trigger is named anew, by a predicates file."""
    trigger, out = exported.home / "trigger.yaml", exported.home / "aces"
    trigger.write_text(f"predicates:\n  index_day: {{code: '{VISIT}'}}\n")
    command = [str(BIN / "aces-cli"), "-m", "data=sharded", "data.standard=meds", "cohort_name=heart_failure"]
    command += [f"data.root={exported.done.directory}/data", "data.shard=000,001", f"cohort_dir={out}"]
    command += [f"config_path={load_task('heart_failure').path}", f"predicates_path={trigger}"]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    columns = ["subject_id", "prediction_time", "boolean_value"]
    theirs = pl.concat([pl.read_parquet(file) for file in sorted((out / "heart_failure").glob("*.parquet"))])
    make_labels(open_run())
    ours = read_labels(open_run(), "heart_failure").filter(pl.col("index") == 1)
    assert theirs.select(columns).sort(columns).equals(ours.select(columns).sort(columns))
    assert 0 < ours["boolean_value"].sum() < ours.height


def test_meds_reader_reads_every_subject_and_event(exported: Exported) -> None:
    import meds_reader

    database = exported.home / "meds_reader"
    subprocess.run([BIN / "meds_reader_convert", exported.done.directory, database], check=True, timeout=120)
    view = pl.concat([read_view(exported.snapshot, END, shard) for shard in range(2)])
    properties = [name for name in COLUMNS if name not in {"subject_id", "removed"}]
    with meds_reader.SubjectDatabase(str(database)) as read:
        assert sorted(read) == sorted(view["subject_id"].unique())
        assert set(read.properties) == set(properties)
        for (subject,), rows in view.group_by("subject_id", maintain_order=True):
            events = [tuple(getattr(found, name) for name in properties) for found in read[subject].events]
            assert events == rows.select(properties).rows()


def test_subjects_fewer_than_shards_leave_valid_empty_files(home: Path) -> None:
    snapshot = commit_true(two_people(), shards=8)
    done = export_meds(home / "meds")
    assert (done.files, done.events) == (8, 5)
    for file in (home / "meds" / "data").iterdir():
        meds.DataSchema.validate(pq.read_table(file))
    subprocess.run([BIN / "meds_reader_convert", home / "meds", home / "database"], check=True, timeout=120)
    assert done.digest == snapshot.digest


def test_corrections_and_deletions_of_a_real_night_are_not_in_its_export(vigil: Settings, tmp_path: Path) -> None:
    small_hospital.build()
    base = small_hospital.night(small_hospital.BASE)
    after = small_hospital.BASE + timedelta(days=1)
    small_hospital.add_condition(5, 5, date(2024, 1, 6), 101, recorded=after, removed=True)
    small_hospital.add_condition(6, 6, date(2024, 1, 7), 102, recorded=after)
    snapshot = small_hospital.night(after)
    old, new = export_meds(tmp_path / "old", small_hospital.BASE), export_meds(tmp_path / "new")
    assert (old.digest, new.digest) == (base.digest, snapshot.digest)
    codes = {
        name: dict(read_all(tmp_path / name).select("source_key", "code").sort("source_key").iter_rows())
        for name in ("old", "new")
    }
    changed = {key: codes["new"].get(key) for key, code in codes["old"].items() if codes["new"].get(key) != code}
    assert changed == {"condition_occurrence/5": None, "condition_occurrence/6": "ICD10CM//E11.9"}


def read_all(root: Path) -> pl.DataFrame:
    return pl.concat([read_data(file) for file in sorted((root / "data").iterdir())])


moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
drawn_rows = st.lists(
    st.fixed_dictionaries(
        {
            "subject_id": st.integers(-(2**63), 2**63 - 1) | st.integers(1, 4),
            "time": st.none() | moments,
            "code": st.text(max_size=6),
            "numeric_value": st.none() | st.floats(width=32),
            "text_value": st.none() | st.text(max_size=6),
            "visit_id": st.none() | st.integers(-(2**63), 2**63 - 1),
            "recorded_at": moments,
            "source_key": st.text(max_size=6),
        }
    ),
    max_size=20,
)


@settings(max_examples=25, deadline=None)
@given(drawn_rows)
def test_any_view_reads_back_as_it_was(rows: list[dict[str, Any]]) -> None:
    view = pl.DataFrame(rows, schema={name: COLUMNS[name] for name in COLUMNS if name != "removed"})
    view = view.with_columns(removed=pl.lit(False)).sort(ORDER, nulls_last=False)
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder) / "x.parquet", view)
        back = read_data(Path(folder) / "x.parquet")
    assert bucket_digests(back, range(BUCKETS)) == bucket_digests(view, range(BUCKETS))
    assert back.schema == pl.Schema(COLUMNS)


def table(**columns: pa.Array) -> pa.Table:
    return pa.table(columns)


BAD = {
    "data: a subject that is no int64": ("DataSchema", lambda: table(subject_id=pa.array(["1"]), time=TIME, code=CODE)),
    "data: a time with a zone": (
        "DataSchema",
        lambda: table(subject_id=pa.array([1]), time=pa.array([0], pa.timestamp("us", "UTC")), code=CODE),
    ),
    "data: an event without a code": (
        "DataSchema",
        lambda: table(subject_id=pa.array([1]), time=TIME, code=pa.array([None], pa.string())),
    ),
    "codes: parents that are no list": (
        "CodeMetadataSchema",
        lambda: table(code=CODE, description=CODE, parent_codes=CODE),
    ),
    "splits: a column too many": (
        "SubjectSplitSchema",
        lambda: table(subject_id=pa.array([1]), split=CODE, age=pa.array([1])),
    ),
    "splits: a subject without split": (
        "SubjectSplitSchema",
        lambda: table(subject_id=pa.array([1]), split=pa.array([None], pa.string())),
    ),
    "dataset: a name that is no text": ("DatasetMetadataSchema", lambda: {"dataset_name": 3}),
}
TIME = pa.array([0], pa.timestamp("us"))
CODE = pa.array(["ICD10CM//I50.9"])


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_against_the_schema_is_found(fault: str) -> None:
    name, content = BAD[fault]
    with pytest.raises(VigilError, match=f"no valid MEDS {name}"):
        check(name, content())


@pytest.mark.parametrize(
    "change",
    [
        lambda view: view.reverse(),
        lambda view: view.sort("subject_id", "time", descending=[False, True]),
        lambda view: view.sort("subject_id", "time", nulls_last=True),
        lambda view: pl.concat([view, view.head(1)]),
    ],
)
def test_rows_out_of_order_are_found(change: Callable[[pl.DataFrame], pl.DataFrame], tmp_path: Path) -> None:
    view = two_people()
    check_order(view)
    with pytest.raises(VigilError, match="out of MEDS's order"):
        write_data(tmp_path / "x.parquet", change(view))


def test_a_subject_in_two_files_is_found() -> None:
    check_apart([pl.Series([1, 2]), pl.Series([3])])
    with pytest.raises(VigilError, match="1 subjects lie in more than one file"):
        check_apart([pl.Series([1, 2]), pl.Series([2, 3])])


def test_a_file_without_vigils_columns_is_not_read_back(tmp_path: Path) -> None:
    pq.write_table(data_schema().empty_table().drop(["recorded_at"]), tmp_path / "x.parquet")
    with pytest.raises(VigilError, match="no column recorded_at"):
        read_data(tmp_path / "x.parquet")


def content_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_the_same_export_again_changes_nothing(home: Path) -> None:
    commit_true(two_people())
    assert not export_meds(home / "meds").already
    before = content_of(home / "meds")
    assert export_meds(home / "meds").already
    assert content_of(home / "meds") == before


def test_a_folder_that_holds_anything_else_is_refused_and_kept(home: Path) -> None:
    commit_true(two_people())
    (home / "empty").mkdir()
    assert not export_meds(home / "empty").already
    for name, file, text in [("mine", "notes.txt", "mine"), ("other", str(MANIFEST), "{}"), ("bad", str(MANIFEST), "")]:
        (home / name / file).parent.mkdir(parents=True)
        (home / name / file).write_text(text)
        with pytest.raises(RefusedError, match="does not hold this very export"):
            export_meds(home / name)
        assert (home / name / file).read_text() == text
    (home / "file").write_text("a file")
    with pytest.raises(RefusedError):
        export_meds(home / "file")


def test_an_export_of_another_day_or_split_or_with_a_damaged_file_is_refused(home: Path) -> None:
    commit_true(two_people())
    export_meds(home / "meds")
    before = content_of(home / "meds")
    with deployment(home / "vigil", split_salt="another"), pytest.raises(RefusedError):
        export_meds(home / "meds")
    later = pl.concat([two_people(), event_of(7)]).sort(ORDER)
    commit_true(later, as_of=END + timedelta(days=1))
    with pytest.raises(RefusedError):
        export_meds(home / "meds")
    assert export_meds(home / "meds", END).already
    assert content_of(home / "meds") == before
    next((home / "meds" / "data").iterdir()).write_bytes(b"PAR1")
    with pytest.raises(RefusedError):
        export_meds(home / "meds", END)


def event_of(subject: int) -> pl.DataFrame:
    return as_events(person(subject)).with_columns(source_key=pl.format("later/{}", "source_key"))


def test_a_log_that_is_not_its_snapshot_is_not_exported_and_nothing_is_left(home: Path) -> None:
    commit(two_people(), digest="f" * 64)
    with pytest.raises(VigilError, match="does not give the digest of its snapshot of 2024-06-30"):
        export_meds(home / "out" / "meds")
    assert list((home / "out").iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ml.cohorts.meds_export import export_meds

def die(event, arguments):
    paths = [str(one) for one in arguments[:2] if os.environ["VIGIL_HOME"] not in str(one)]
    if event == sys.argv[2] and any(path.endswith(sys.argv[3]) for path in paths):
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
export_meds(Path(sys.argv[1]))
"""


def test_a_killed_export_leaves_nothing_once_the_next_has_run(home: Path) -> None:
    commit_true(two_people())
    target = home / "out" / "meds"
    (home / "out" / ".meds.notours1" / "metadata").mkdir(parents=True)
    for event_name, file in (("open", "001.parquet"), ("os.rename", "/out/meds")):
        done = subprocess.run([sys.executable, "-c", KILLED, target, event_name, file], timeout=120)
        assert done.returncode == -signal.SIGKILL
        left = [path for path in target.parent.iterdir() if path.name != ".meds.notours1"]
        assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in left for path in path.iterdir()] == [0, 0]
        assert len(left) == 1, "the export that was killed before is still there"
        assert not target.exists()
    export_meds(target)
    assert sorted(path.name for path in target.parent.iterdir()) == [".meds.notours1", "meds"]
    assert export_meds(target).already


def test_an_export_under_way_is_not_cleared_away(home: Path) -> None:
    commit_true(two_people())
    other = home / ".meds.abcd1234"
    (other / "metadata").mkdir(parents=True)
    (other / MANIFEST).write_text("{}")
    writer = os.open(other, os.O_RDONLY)
    fcntl.flock(writer, fcntl.LOCK_EX)
    export_meds(home / "meds")
    assert other.exists()
    os.close(writer)
    shutil.rmtree(home / "meds")
    export_meds(home / "meds")
    assert not other.exists()


def test_a_place_that_cannot_be_written_to_is_named(home: Path) -> None:
    commit_true(two_people())
    (home / "file").write_text("a file")
    with pytest.raises(VigilError, match="the export could not be written"):
        export_meds(home / "file" / "meds")


def test_a_day_without_snapshot_is_named(home: Path) -> None:
    commit_true(two_people())
    with pytest.raises(NotFoundError, match="no snapshot of 2024-01-01"):
        export_meds(home / "meds", date(2024, 1, 1))


def chain(code: str) -> list[str]:
    """A code and its ancestors, without the vocabulary."""
    parents = dict(zip(*(code_metadata({code: 1})[name].to_pylist() for name in ("code", "parent_codes")), strict=True))
    found = [code]
    while parents[found[-1]] is not None:
        (above,) = parents[found[-1]]
        found.append(above)
    return [one.partition("//")[2] for one in found]


@pytest.mark.parametrize(
    "expected",
    [
        ["ICD10CM", "I50.9", "I50", "I30-I5A", "I00-I99"],
        ["ICD10CM", "C50.911", "C50.91", "C50.9", "C50", "C00-D49"],  # category and block bear one name
        ["ICD10CM", "I50.99", "I50.9", "I50", "I30-I5A", "I00-I99"],  # unknown: under what it begins with
        ["ICD10CM", "9"],
        ["ICD9CM", "250.02", "250.0", "250"],
        ["ICD9CM", "V10.3", "V10"],
        ["ICD9CM", "E812.0", "E812"],
        ["ICD9Proc", "38.93", "38.9", "38"],
        ["ATC", "A10BA02", "A10BA", "A10B", "A10", "A"],
        ["ATC", "A10BA0"],
        ["LOINC", "4548-4"],
        ["ICD10CM", ""],
    ],
)
def test_a_code_has_its_ancestors(expected: list[str]) -> None:
    vocabulary, *codes = expected
    assert chain(f"{vocabulary}//{codes[0]}") == codes


def test_the_ancestors_of_every_icd10_category_end() -> None:
    import simple_icd_10_cm as icd

    categories = [code for code in icd.get_all_codes() if icd.is_category(code)]
    codes = code_metadata(dict.fromkeys((f"ICD10CM//{code}" for code in categories), 1))
    assert codes["description"].null_count == 0
    roots = [
        code for code, above in zip(*(codes[n].to_pylist() for n in ("code", "parent_codes")), strict=True) if not above
    ]
    assert len(roots) == 22


def test_descriptions_are_given_where_the_licence_allows_and_nowhere_else() -> None:
    public = {
        "ICD10CM//I50.9": "Heart failure, unspecified",
        "ICD9CM//428.0": "Congestive heart failure, unspecified",
        "ICD9Proc//38.93": "Venous catheterization, not elsewhere classified",
        "MEDS_DEATH": "death",
        "GENDER//F": "female",
    }
    withheld = ["ATC//A10BA02", "LOINC//4548-4", "SNOMED//84114007", "NDC//00002821501", "SOURCE//Smith, John", "x"]
    found = code_metadata(dict.fromkeys([*public, *withheld], 1)).to_pylist()
    described = {row["code"]: row["description"] for row in found}
    assert {code: described[code] for code in public} == public
    assert all(text is None for code, text in described.items() if code in withheld or code.startswith("ATC"))


def test_the_command_exports_and_says_that_it_holds_patients(home: Path) -> None:
    commit_true(two_people())
    done = CliRunner().invoke(app, ["meds", str(home / "meds"), "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert (report["events"], report["already"], report["notice"]) == (5, False, PROTECTED)
    again = CliRunner().invoke(app, ["meds", str(home / "meds"), "--as-of", str(END)])
    assert "holds this export already" in again.stdout
    assert PROTECTED in again.stdout
    told = CliRunner().invoke(app, ["meds", "--help"]).stdout
    assert "It holds patients' records" in told
