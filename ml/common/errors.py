"""Errors that a person can act on: one line that names the cause and the remedy.

An error message never holds a value of a patient.
"""

from __future__ import annotations


class VigilError(Exception):
    """A failure with a known cause. ``str()`` is one line: ``cause: remedy``.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 1

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)  # both in args, so that the error survives pickling between processes
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(f"{self.cause}: {self.remedy}".split())


class ConfigError(VigilError):
    """A setting or a file of settings is absent or wrong."""

    exit_code = 2


class SourceError(VigilError):
    """The EHR source cannot be reached or is not what it should be."""

    exit_code = 3


class QualityError(VigilError):
    """An expectation of severity block failed; nothing was committed."""

    exit_code = 4


class RefusedError(VigilError):
    """A fence, a gate or a missing decision forbids the step; nothing was changed."""

    exit_code = 5


class NotFoundError(VigilError):
    """What was asked for does not exist."""

    exit_code = 6
