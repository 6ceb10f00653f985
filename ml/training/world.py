"""The processes of a training: one, or several that `torchrun` started."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ml.training.parallel import Replicas, Work, loss_of
from ml.training.precision import device

PATIENCE = timedelta(hours=2)  # the others wait while the first process judges a model


@dataclass(frozen=True)
class World:
    """This process among ``size``; the first one writes and reports."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> npt.NDArray[np.float64]:
        """Each value, added over the processes."""
        together = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(together)
        return together.numpy()


def world() -> World:
    """The world of this process, joined on the first call where `torchrun` made one."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return World()
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(dist.get_node_local_rank())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    return World(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Part from the other processes."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gradients_of(model: nn.Module, slots: int, threads: int, place: World) -> Replicas | Distributed:
    """Threads in one process on a CPU, one after the other on a GPU, shared among processes where there are several."""
    if place.size > 1:
        return Distributed(model, place)
    return Replicas(model, slots if device().type == "cpu" else 1, threads)


class Distributed:
    """Gradients by PyTorch's DistributedDataParallel: micro-batches are added up here, and with others' at the last."""

    def __init__(self, model: nn.Module, place: World) -> None:
        self.size = place.size
        # A head has no part in pretraining, the decoder none in fine-tuning.
        self.wrapped = nn.parallel.DistributedDataParallel(
            _Loss(model.train()), find_unused_parameters=True, broadcast_buffers=False
        )

    def gradients(self, works: Sequence[Work], counts: npt.NDArray[np.float64]) -> Tensor:
        """See `ml.training.parallel.Gradients`; each process must bring at least one micro-batch."""
        self.wrapped.zero_grad(set_to_none=True)
        losses = []
        for number, work in enumerate(works, 1):
            with nullcontext() if number == len(works) else self.wrapped.no_sync():
                loss = self.wrapped(work, counts)
                (loss * self.size).backward()  # DDP takes the mean over processes, a step's loss is their sum
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def close(self) -> None:
        """Nothing to do."""


class _Loss(nn.Module):
    """A loss as a module's forward pass, which is what DDP hooks into."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Work, counts: npt.NDArray[np.float64]) -> Tensor:
        return loss_of(self.model, work, counts)
