"""One attention function behind one name, chosen by device.

On the CPU plain bmm and softmax: the backward pass of the fused kernels is slower there. On a GPU the fused one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Scaled dot-product attention (Vaswani 2017, eq. 1).

    Args:
        query, key, value: ``[batch, heads, length, size]``.
        bias: ``[batch, 1, 1, length]``: 0 where a key may be seen, very negative where it is padding.

    Returns:
        ``[batch, heads, length, size]``.
    """
    if query.device.type == "cpu":
        return plain(query, key, value, bias)
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))


def plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """The reference, and the fast way on a CPU."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5  # [B, heads, L, L]
    return torch.softmax(scores + bias, dim=-1).to(value.dtype) @ value


def padding_bias(lengths: Tensor, width: int) -> Tensor:
    """``[batch, 1, 1, width]``: 0 for real positions, -1e4 for padding (representable in every float type)."""
    padding = torch.arange(width, device=lengths.device)[None, :] >= lengths[:, None]
    return padding[:, None, None, :].float() * -1e4
