"""A step as several micro-batches on Python threads, one intra-op thread each.

On a shared machine the threads of one matrix product wait for each other at every operation, and a busy core makes
all of them slow: measured on two cores under load, two intra-op threads were ten times slower than one. Micro-batches
meet once per step. Their number is fixed by the preset and each has its own random generator, so that the result is
the same, bit for bit, however many threads there are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from ml.models.dropout import Dropout
from ml.models.medbert import MedBert

Item = TypeVar("Item")
Result = TypeVar("Result")


class Replicas:
    """Copies of a model that share its weights and have gradients and dropout of their own."""

    def __init__(self, model: MedBert, slots: int, threads: int, seed: int) -> None:
        self.model = model
        self.copies = [_share(model, seed + slot) for slot in range(slots)]
        self.pool = ThreadPoolExecutor(max(1, min(threads, slots)))

    def gradients(self, losses: Sequence[Callable[[MedBert], Tensor]]) -> Tensor:
        """Leave the mean gradient of some losses, at most one per slot, in the model; their mean.

        Args:
            losses: each gives a scalar loss on the copy it is called with.
        """
        values = list(self.pool.map(_backward, self.copies, losses))
        used = self.copies[: len(losses)]
        for parameters in zip(self.model.parameters(), *(c.parameters() for c in used), strict=True):
            found = [p.grad for p in parameters[1:] if p.grad is not None]
            parameters[0].grad = torch.stack(found).sum(0) / len(losses) if found else None
        return torch.stack(values).mean()

    def close(self) -> None:
        self.pool.shutdown()


def grouped(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` consecutive items; the last may be shorter."""
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def on_threads(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """``map`` over threads, in order; torch keeps to one intra-op thread meanwhile on a CPU."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return list(pool.map(function, items))


def _share(model: MedBert, seed: int) -> MedBert:
    twin = copy.deepcopy(model)
    for own, original in zip(twin.parameters(), model.parameters(), strict=True):
        own.data = original.data
    for module in twin.modules():
        if isinstance(module, Dropout):
            module.seed(seed, model.device)
    return twin.train()


def _backward(model: MedBert, loss: Callable[[MedBert], Tensor]) -> Tensor:
    model.zero_grad(set_to_none=True)
    value = loss(model)
    value.backward()
    return value.detach()
