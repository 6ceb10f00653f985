"""A training that is asked to stop, or has too little memory, says so by an error and an exit status of its own."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from ml.common.errors import VigilError

_requested = threading.Event()


class StoppedError(VigilError):
    """Stopped on request; a checkpoint was written, and the next run goes on from it."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class OutOfMemoryError(VigilError):
    """The device's memory is too small for a micro-batch."""

    exit_code = 76


def listen() -> None:
    """Let SIGTERM and SIGINT ask for a stop at the next step."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _request)


def requested() -> bool:
    """Whether this process was asked to stop."""
    return _requested.is_set()


def _request(number: int, frame: FrameType | None) -> None:
    _requested.set()
