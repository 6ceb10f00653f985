"""AdamW, a warm-up followed by a cosine, clipping, and the check that the loss is a number."""

from __future__ import annotations

import math

import torch
from torch import nn

from ml.models.presets import StagePreset


class NotFiniteError(ArithmeticError):
    """A loss or a gradient is not a number at a learning rate; the weights were not touched."""

    def __init__(self, what: str, rate: float) -> None:
        super().__init__(what)
        self.rate = rate


def optimiser(model: nn.Module, stage: StagePreset, head_rate: float = 1.0) -> torch.optim.AdamW:
    """Fused AdamW; biases, norms and other vectors are not decayed.

    Args:
        head_rate: learning rate of parameters named ``heads.*``, as a multiple of the others'.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("heads."), parameter.ndim >= 2), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "weight_decay": stage.weight_decay if decayed else 0.0,
            "factor": head_rate if head else 1.0,
        }
        for (head, decayed), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=stage.learning_rate, betas=(0.9, 0.98), fused=True)


def rate(share: float, warmup: float) -> float:
    """Factor on the learning rate at a share 0 … 1 of the budget: linear up, then a cosine down to 5 %."""
    if share < warmup:
        return max(share / warmup, 0.01)
    along = min((share - warmup) / max(1.0 - warmup, 1e-9), 1.0)
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * along))


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: float, stage: StagePreset, share: float
) -> tuple[float, float]:
    """One update from the gradients that are there.

    Returns:
        The norm of the gradient before clipping, and the learning rate.

    Raises:
        NotFiniteError: the loss or the gradient is not finite; the weights were not touched.
    """
    norm, now = float(nn.utils.clip_grad_norm_(model.parameters(), stage.clip)), rate(share, stage.warmup)
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            raise NotFiniteError(f"{name} became {value}", stage.learning_rate * now)
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * group["factor"] * now
    optimizer.step()
    return norm, stage.learning_rate * now
