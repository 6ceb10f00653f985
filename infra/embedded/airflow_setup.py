"""Airflow's metadata database and pools, in one process: ``python -m infra.embedded.airflow_setup MARKER``.

Each call of Airflow's own command line costs many seconds of imports; this pays them once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from infra.embedded.airflow_settings import POOL
from ml.common.files import write_json
from ml.settings import get_settings


def main(arguments: list[str]) -> None:
    """Create or upgrade the database, create or resize the pools, and note the revision in a file."""
    from airflow import __version__
    from airflow.models.pool import Pool
    from airflow.utils import db
    from airflow.utils.session import create_session
    from sqlalchemy import text

    db.initdb()  # makes default_pool too
    with create_session() as session:
        slots = get_settings().gpu_slots
        pool = Pool.get_pool(POOL, session=session)
        if pool is None:
            session.add(Pool(pool=POOL, slots=slots, description="trainings at a time", include_deferred=False))
        else:
            pool.slots = slots
        revision = session.execute(text("select version_num from alembic_version")).scalar_one()
    write_json(Path(arguments[0]), {"airflow": __version__, "revision": revision, "gpu_slots": slots})


if __name__ == "__main__":
    main(sys.argv[1:])
