"""Clocks, settings, and what the machine can do at most."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ml.settings import get_settings

PRODUCTS = ((1024, 1024, 1024), (2048, 768, 768), (4096, 192, 768), (4096, 768, 192))  # rows, inner, columns
REPEATS = 8


@dataclass(frozen=True)
class Rate:
    """Work per second of the clock and of the processor."""

    wall: float
    cpu: float

    def times(self, factor: float) -> Rate:
        return Rate(self.wall * factor, self.cpu * factor)


def rate_of(work: Callable[[], float]) -> Rate:
    """Run ``work``, which gives how much it did."""
    wall, cpu = time.perf_counter(), time.process_time()
    done = work()
    return Rate(done / (time.perf_counter() - wall), done / (time.process_time() - cpu))


def median(rates: list[Rate], clock: str) -> float:
    return statistics.median(getattr(rate, clock) for rate in rates)


def matrix_rate(threads: int, dtype: torch.dtype) -> Rate:
    """FLOP/s of the best of several matrix products: one per thread at once, or one shared by all threads.

    The number of torch's threads is 1 afterwards.
    """
    rates = []
    for shape in PRODUCTS:
        torch.set_num_threads(threads)
        rates.append(_rate(shape, dtype, 1))
        torch.set_num_threads(1)
        rates.append(_rate(shape, dtype, threads))
    return Rate(max(rate.wall for rate in rates), max(rate.cpu for rate in rates))


def _rate(shape: tuple[int, int, int], dtype: torch.dtype, at_once: int) -> Rate:
    rows, inner, columns = shape
    pairs = [(torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)) for _ in range(at_once)]

    def multiply(pair: tuple[torch.Tensor, torch.Tensor]) -> float:
        out = pair[0] @ pair[1]
        for _ in range(REPEATS - 1):
            torch.mm(*pair, out=out)
        return 2.0 * rows * inner * columns * REPEATS

    if at_once == 1:
        multiply(pairs[0])
        return rate_of(lambda: multiply(pairs[0]))
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(multiply, pairs))
        return rate_of(lambda: sum(pool.map(multiply, pairs)))


def only_settings(**settings: object) -> None:
    """These settings from here on in this process and its children, and none of the caller's own."""
    for name in [name for name in os.environ if name.startswith("VIGIL_")]:
        del os.environ[name]
    for name, value in settings.items():
        os.environ[f"VIGIL_{name.upper()}"] = str(value)
    get_settings.cache_clear()
