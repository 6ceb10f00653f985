"""Twenty million events pass extraction, validation, commit and tokenising within two gigabytes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import date

import pytest

from benchmarks.big_hospital import LAST_DAY, fill, server

EVENTS = int(os.environ.get("VIGIL_TEST_EVENTS", "20000000"))
LIMIT_GB = 2.0
STEPS = {
    "extract": "from ml.extraction import extract; extract(day)",
    "validate": "from ml.quality import validate; validate(day)",
    "commit": "from ml.extraction import commit_snapshot; commit_snapshot(day)",
    "tokenise": """
from pathlib import Path
from ml.extraction import load_snapshot, read_view
from ml.sequences.prepare import COUNTED, add_up, count_shard, make_store
from ml.sequences.store import store_path
from ml.sequences.vocabulary import EMPTY, grow
from ml.settings import get_settings
snapshot, settings = load_snapshot(day), get_settings()
shards = (read_view(snapshot, day, shard, COUNTED) for shard in range(snapshot.shards))
counts = add_up(count_shard(view, settings.split_salt) for view in shards)
vocabulary = grow(EMPTY, counts.events, counts.values)
for shard in range(snapshot.shards):
    make_store(store_path(settings.data_dir / "run", day, shard), snapshot, day, shard, vocabulary)
""",
}
PROGRAM = """
import resource
from datetime import date
day = date.fromisoformat({day!r})
{step}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_twenty_million_events_pass_within_two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VIGIL_")]:
            patch.delenv(name)
        with server(shards=16):
            fill(EVENTS, EVENTS // 100)
            peaks = {step: peak(code, LAST_DAY) for step, code in STEPS.items()}
    print(", ".join(f"{step} {gigabytes:.2f} GB" for step, gigabytes in peaks.items()))
    assert max(peaks.values()) < LIMIT_GB, peaks


def peak(step: str, day: date) -> float:
    """Largest resident set, in GB, of a process that does one step."""
    program = PROGRAM.format(day=day.isoformat(), step=step)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(done.stdout.splitlines()[-1])
