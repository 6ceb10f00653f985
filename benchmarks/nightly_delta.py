"""A night's extraction and validation against the length of the history behind it: the cost must follow the night.

Run: python -m benchmarks.nightly_delta [--events 250000] [--times 16] [--rows 20000] [--nights 5]

Two hospitals, one with ``times`` the patients and events of the other, live through the same nights, in turn, in one
process: extract, validate, commit. ``growth`` is the large one's time over the small one's for extraction and
validation (medians over the nights); ``commit_growth`` the same for the commit, which digests the whole view and does
grow.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

from benchmarks.big_hospital import LAST_DAY, add_night, fill, server
from ml.extraction import commit_snapshot, extract
from ml.extraction.log import pending_partition
from ml.quality import Verdict, validate
from ml.quality.verdict import write_verdict
from ml.settings import get_settings

STEPS: dict[str, Callable[..., object]] = {"extract": extract, "validate": validate, "commit": commit_snapshot}


def enter(environment: dict[str, str]) -> None:
    """Make a hospital's deployment this process's own."""
    for name in [name for name in os.environ if name.startswith("VIGIL_")]:
        del os.environ[name]
    os.environ.update(environment)
    get_settings.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=250_000, help="events behind the small hospital's nights")
    parser.add_argument("--times", type=int, default=16, help="how many times more the large one has")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a night")
    parser.add_argument("--nights", type=int, default=5)
    options = parser.parse_args()
    sizes = {"small": options.events, "large": options.events * options.times}
    seconds: dict[tuple[str, str], list[float]] = {(size, step): [] for size in sizes for step in STEPS}
    with ExitStack() as stack:
        deployments = {}
        for size, events in sizes.items():
            stack.enter_context(server(shards=4))
            deployments[size] = {name: value for name, value in os.environ.items() if name.startswith("VIGIL_")}
            fill(events, patients(events))
            extract(LAST_DAY)
            base = pending_partition(LAST_DAY)
            assert base is not None
            write_verdict(base, Verdict(LAST_DAY, passed=True, empty=False, rows=0, quarantined=0))
            commit_snapshot(LAST_DAY)
        for night in range(options.nights + 1):
            day = LAST_DAY + timedelta(days=night + 1)
            for size, events in sizes.items():
                enter(deployments[size])
                add_night(day, options.rows, patients(events))
                for step, work in STEPS.items():
                    began = time.perf_counter()
                    work(day)
                    if night:  # the first one imports and warms up
                        seconds[size, step].append(time.perf_counter() - began)
    show(sizes, {key: statistics.median(values) for key, values in seconds.items()}, options)


def patients(events: int) -> int:
    """Forty events a patient."""
    return events // 40


def show(sizes: dict[str, int], median: dict[tuple[str, str], float], options: argparse.Namespace) -> None:
    """A table, and the growth."""
    print(f"{'history':>12}" + "".join(f"{step:>12}" for step in STEPS))
    for size, events in sizes.items():
        print(f"{events:12,}" + "".join(f"{median[size, step]:11.2f}s" for step in STEPS))
    night = {size: median[size, "extract"] + median[size, "validate"] for size in sizes}
    growth, commit = night["large"] / night["small"], median["large", "commit"] / median["small", "commit"]
    print(f"growth={growth:.2f} history_times={options.times} rows={options.rows} commit_growth={commit:.2f}")


if __name__ == "__main__":
    main()
