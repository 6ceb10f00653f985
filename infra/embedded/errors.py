"""Errors of the embedded stack."""

from __future__ import annotations

from ml.common.errors import VigilError


class StackError(VigilError):
    """A process of the embedded stack does not start, or its state directory is damaged. Nothing was destroyed."""

    exit_code = 7
