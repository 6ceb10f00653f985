"""A step as several micro-batches on Python threads, one intra-op thread each.

On a shared machine the threads of one matrix product wait for each other at every operation, and a busy core makes
all of them slow: measured on two cores under load, two intra-op threads were ten times slower than one. Micro-batches
meet once per step. The number of slots is fixed by the preset and each micro-batch has a random seed of its own, so
that the result is the same, bit for bit, however many threads there are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ml.models.dropout import Dropout
from ml.models.inputs import send

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """A micro-batch of a step.

    The loss of a step is, for each of its parts (masked codes, an outcome), the sum over all micro-batches divided by
    the count over all of them, so that it does not depend on how the step is cut into micro-batches.

    Attributes:
        counts: ``[parts]`` what the sums are to be divided by: masked codes, weights of known labels.
        sums: ``[parts]`` of losses, on the model it is called with.
        tokens: real ones.
        seed: of dropout.
    """

    counts: npt.NDArray[np.float64]
    sums: Callable[[nn.Module], Tensor]
    tokens: int
    seed: int = 0


class Gradients(Protocol):
    """Whatever makes the gradient of a step."""

    def gradients(self, works: Sequence[Work], counts: npt.NDArray[np.float64]) -> Tensor:
        """Leave the gradient of the step's loss in the model; this process's part of the loss, a scalar.

        A GPU may still be at work on both: what comes next waits in line, and reading the loss waits for it.

        Args:
            works: this process's micro-batches.
            counts: ``[parts]`` over the whole step.
        """
        ...

    def close(self) -> None: ...


class Replicas:
    """Copies of a model that share its weights and have gradients and dropout of their own; one slot needs no copy."""

    def __init__(self, model: nn.Module, slots: int, threads: int) -> None:
        self.model = model
        self.copies = [model.train()] if slots == 1 else [_share(model) for _ in range(slots)]
        self.pool = ThreadPoolExecutor(max(1, min(threads, slots)))

    def gradients(self, works: Sequence[Work], counts: npt.NDArray[np.float64]) -> Tensor:
        """Slot ``s`` works on micro-batches ``s``, ``s + slots``, …; their sum is taken in the order of slots."""
        slots = len(self.copies)
        self.model.zero_grad(set_to_none=True)  # the last step's gradient makes room for this one's
        futures = [self.pool.submit(_backward, twin, works[s::slots], counts) for s, twin in enumerate(self.copies)]
        wait(futures)  # all of them, also where one fails: none may touch the weights later
        values = [future.result() for future in futures]
        for parameters in zip(self.model.parameters(), *(twin.parameters() for twin in self.copies), strict=True):
            found = [p.grad for p in parameters[1:] if p.grad is not None]
            for grad in found[1:]:
                found[0] += grad
            parameters[0].grad = found[0] if found else None
        return torch.stack(values).sum()

    def close(self) -> None:
        self.pool.shutdown()


def loss_of(model: nn.Module, work: Work, counts: npt.NDArray[np.float64]) -> Tensor:
    """A micro-batch's part of the step's loss, with dropout seeded for it."""
    seed_dropout(model, work.seed)
    sums = work.sums(model).float()
    return (sums / send(counts.astype(np.float32), sums.device)).sum()


def seed_dropout(model: nn.Module, seed: int) -> None:
    """Give each dropout layer random numbers of its own; on a GPU, the device."""
    if next(model.parameters()).device.type == "cuda":
        torch.cuda.manual_seed(seed)
        return
    for number, layer in enumerate(module for module in model.modules() if isinstance(module, Dropout)):
        layer.seed(seed + number)


def on_threads(function: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """``map`` over threads, in order; torch keeps to one intra-op thread meanwhile on a CPU."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return list(pool.map(function, items))


def _share(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for own, original in zip(twin.parameters(), model.parameters(), strict=True):
        own.data = original.data
    return twin.train()


def _backward(model: nn.Module, works: Sequence[Work], counts: npt.NDArray[np.float64]) -> Tensor:
    model.zero_grad(set_to_none=True)
    losses = []
    for work in works:
        loss = loss_of(model, work, counts)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum() if losses else torch.zeros(())
