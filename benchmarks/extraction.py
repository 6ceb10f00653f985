"""A base load: Vigil's extraction against psycopg2's fetchall into a dataframe, and against the server alone.

Run: python -m benchmarks.extraction [--rows 10000000] [--rounds 2]

All run the very queries of the OMOP source, in turn, each in a process of its own:
- vigil: ``extract``: ADBC to Arrow batches, routed to shards, written as Parquet with digests and counts, fsynced.
- vigil-read: the same batches, dropped as they come: what of it is reading.
- psycopg2-fetchall: the common way; ``fetchall``, then ``pandas.DataFrame``. Nothing is written.
- server only: ``COPY (query) TO '/dev/null'``, the bound that no client can pass.

``ratio`` is psycopg2's time over Vigil's, ``ratio_read`` over that of reading alone, ``of_limit`` the server's over
Vigil's, of the medians; ``ratio_limit`` is what a client without any cost of its own would reach. ``resident`` is the
largest resident set of Vigil's process, in GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import date

from benchmarks.big_hospital import LAST_DAY, Server, fill, server

CONTENDERS = ("vigil", "vigil-read", "psycopg2-fetchall", "server-only")


def queries() -> dict[str, str]:
    """The event query of every kind of record, as the extraction sends it."""
    from ml.common.db import connect
    from ml.settings import Role, get_settings
    from ml.sources import open_source

    settings = get_settings()
    with connect(Role.EXTRACT, readonly=True) as connection:
        plan = open_source(settings.source).plan(connection, settings.source_schema)
        return {kind.kind: kind.events(None, LAST_DAY).as_string(connection) for kind in plan.kinds}


def vigil() -> int:
    """Rows that Vigil extracted."""
    from ml.extraction import extract

    return sum(extract(LAST_DAY).rows.values())


def vigil_read() -> int:
    """Rows that came in Vigil's batches, which nobody keeps."""
    from ml.common.db import connect
    from ml.extraction.stream import read_kinds, share_snapshot
    from ml.settings import Role

    with connect(Role.EXTRACT, readonly=True, isolation="REPEATABLE READ") as connection:
        return sum(batch.num_rows for _, batch in read_kinds(queries(), share_snapshot(connection)))


def psycopg2_fetchall() -> int:
    """Rows that psycopg2 brought into dataframes."""
    import pandas as pd

    from ml.common.db import connect
    from ml.settings import Role

    frames = []
    with connect(Role.EXTRACT, readonly=True) as connection, connection.cursor() as cursor:
        for query in queries().values():
            cursor.execute(query)
            assert cursor.description is not None
            frames.append(pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description]))
    return sum(map(len, frames))


def server_only(admin_dsn: str) -> int:
    """Rows that the server produced and threw away."""
    from infra.postgres.setup import administer

    rows = 0
    with administer(admin_dsn) as admin, admin.cursor() as cursor:
        for setting in ("timezone = 'UTC'", "jit = off", "max_parallel_workers_per_gather = 0"):  # as Vigil's own
            cursor.execute(f"set {setting}")
        for query in queries().values():
            cursor.execute(f"copy ({query}) to '/dev/null' (format binary)")
            rows += cursor.rowcount
    return rows


def child(contender: str, admin_dsn: str) -> None:
    """Run one contender here and print what it took."""
    run = {
        "vigil": vigil,
        "vigil-read": vigil_read,
        "psycopg2-fetchall": psycopg2_fetchall,
        "server-only": lambda: server_only(admin_dsn),
    }
    start = time.perf_counter()
    rows = run[contender]()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB
    print(json.dumps({"rows": rows, "seconds": seconds, "peak": peak}))


def run_child(contender: str, place: Server) -> dict[str, float]:
    """What a contender took in a process of its own, imports left out."""
    command = [sys.executable, "-m", "benchmarks.extraction", "--child", contender]
    environment = os.environ | {"BENCH_ADMIN_DSN": place.admin_dsn_of_ehr()}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="events in the hospital")
    parser.add_argument("--rounds", type=int, default=2, help="interleaved rounds")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, os.environ["BENCH_ADMIN_DSN"])
        return
    assert date.today() > LAST_DAY
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with server(shards=8) as place:
        fill(options.rows, patients=max(options.rows // 200, 10))
        for _ in range(options.rounds):
            for name in CONTENDERS:
                found[name].append(run_child(name, place))
    rows = {name: {run["rows"] for run in runs} for name, runs in found.items()}
    assert len(set.union(*rows.values())) == 1, f"they did not read the same: {rows}"
    (events,) = rows["vigil"]
    median = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    peak = {name: max(run["peak"] for run in runs) for name, runs in found.items()}
    print(f"{'':20}{'seconds':>10}{'rows/s':>12}{'resident GB':>14}")
    for name in CONTENDERS:
        shown = f"{peak[name]:14.2f}" if name != "server-only" else f"{'':>14}"
        print(f"{name:20}{median[name]:10.1f}{events / median[name]:12,.0f}{shown}")
    peer = median["psycopg2-fetchall"]
    print(
        f"ratio={peer / median['vigil']:.1f} peer=psycopg2-fetchall rows={int(events)} "
        f"of_limit={median['server-only'] / median['vigil']:.2f} resident={peak['vigil']:.2f} "
        f"ratio_read={peer / median['vigil-read']:.1f} ratio_limit={peer / median['server-only']:.1f}"
    )


if __name__ == "__main__":
    main()
