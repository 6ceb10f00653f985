"""A small demo hospital in memory, made once, and one in Postgres."""

from __future__ import annotations

import pytest

from ml.demo.generate import Chunk, Order, generate

SMALL = Order(2_000, "general", 7)


@pytest.fixture(scope="session")
def small() -> Chunk:
    """2,000 people: rows and truth."""
    (chunk,) = generate(SMALL)
    return chunk
