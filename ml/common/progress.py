"""Progress of long work, for the task log and for a person who watches.

A line goes to the log at most every few seconds; the newest state goes to
``data/progress/<stage>.json``, which `make nightly` shows while the task runs. Numbers and words only.
"""

from __future__ import annotations

import logging
import time

from ml.common.files import write_json
from ml.settings import get_settings

log = logging.getLogger(__name__)


class Progress:
    """Reports ``done`` of ``total`` for one stage.

    Args:
        stage: short name, also the file's name.
        total: units of work, or None where unknown.
        every: least seconds between two reports.
    """

    def __init__(self, stage: str, total: float | None = None, every: float = 2.0) -> None:
        self.stage, self.total, self.every = stage, total, every
        self._last = 0.0

    def report(self, done: float, note: str = "", *, force: bool = False) -> None:
        """Say how far the work is; cheap to call often."""
        now = time.monotonic()
        last_unit = self.total is not None and done >= self.total
        if not (force or last_unit) and now - self._last < self.every:
            return
        self._last = now
        share = f"{done:,.0f}" if not self.total else f"{done:,.0f} of {self.total:,.0f} ({done / self.total:.0%})"
        log.info("%s: %s %s", self.stage, share, note)
        write_json(
            get_settings().data_dir / "progress" / f"{self.stage}.json",
            {"stage": self.stage, "done": done, "total": self.total, "note": note},
        )
