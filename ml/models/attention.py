"""One attention function behind one name, chosen by device.

On the CPU plain bmm and softmax on padded batches: the backward pass of the fused kernels is slower there, and batches
of like lengths have little padding. On a GPU in 16 bits, packed: the tokens of all sequences one after the other,
padding left out once before the encoder and put back once after it, with a kernel for sequences of many lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

HALF = (torch.float16, torch.bfloat16)  # what the kernel for many lengths takes
KERNEL_MULTIPLE, KERNEL_LARGEST = 8, 256  # features per head that it takes


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch are: ``[batch, width]`` with padding, or ``[total]`` without.

    Attributes:
        lengths: ``[batch]`` real tokens.
        width: of the padded batch.
        real: int ``[total]``, each real token's place in the flat padded batch; None where padding stays.
        starts: int32 ``[batch + 1]``, with ``real``: sequence i owns packed tokens ``starts[i]:starts[i + 1]``.
    """

    lengths: Tensor
    width: int
    real: Tensor | None = None
    starts: Tensor | None = None

    @classmethod
    def packed(cls, lengths: Tensor, width: int, total: int | None = None) -> Layout:
        """Without padding; where ``total``, the sum of the lengths, is given, a GPU is not waited for."""
        starts = functional.pad(lengths.cumsum(0), (1, 0))
        padding = torch.arange(lengths.shape[0], device=lengths.device) * width - starts[:-1]  # before each sequence
        before = torch.repeat_interleave(padding, lengths, output_size=total)
        real = before + torch.arange(before.shape[0], device=lengths.device)
        return cls(lengths, width, real, starts.to(torch.int32))

    @cached_property
    def bias(self) -> Tensor:
        """``[batch, 1, 1, width]``, see `padding_bias`."""
        return padding_bias(self.lengths, self.width)

    def places(self) -> Tensor:
        """Each token's place in its sequence, from 0: ``[width]`` padded, ``[total]`` packed."""
        return torch.arange(self.width, device=self.lengths.device) if self.real is None else self.real % self.width

    def pack(self, hidden: Tensor) -> Tensor:
        """``[batch, width, hidden]`` → ``[total, hidden]``; as it is where padding stays."""
        return hidden if self.real is None else hidden.flatten(0, 1).index_select(0, self.real)

    def unpack(self, hidden: Tensor) -> Tensor:
        """``[total, hidden]`` → ``[batch, width, hidden]``, 0 at padding; as it is where padding stays."""
        if self.real is None:
            return hidden
        batch = self.lengths.shape[0]
        padded = hidden.new_zeros(batch * self.width, hidden.shape[-1]).index_copy(0, self.real, hidden)
        return padded.view(batch, self.width, -1)


@dataclass(frozen=True)
class Rotation:
    """Rotary positions (Su 2021, eq. 34): cosines and sines ``[tokens, 1, size / 2]`` of each pair's angle."""

    cosine: Tensor
    sine: Tensor

    @classmethod
    def of(cls, places: Tensor, size: int) -> Rotation:
        rate = 10_000.0 ** (-torch.arange(0, size, 2, device=places.device) / size)
        angle = places[:, None, None].float() * rate
        return cls(angle.cos(), angle.sin())

    def at(self, places: Tensor) -> Rotation:
        """The angles of one place of each sequence, for ``[batch, 1, heads, size]``."""
        return Rotation(self.cosine[places][:, None], self.sine[places][:, None])

    def turn(self, vectors: Tensor) -> Tensor:
        """``[..., tokens, heads, size]`` → the same, neighbouring features turned as pairs."""
        first, second = vectors[..., 0::2], vectors[..., 1::2]
        turned = (first * self.cosine - second * self.sine, second * self.cosine + first * self.sine)
        return torch.stack(turned, dim=-1).flatten(-2).to(vectors.dtype)


def layout_of(
    lengths: Tensor, width: int, head_size: int, packed: bool | None = None, total: int | None = None
) -> Layout:
    """The layout that is fastest on the device, or the one asked for.

    Args:
        lengths: ``[batch]``.
        packed: None chooses; tests and comparisons ask.
        total: the sum of the lengths, where it is known.
    """
    if packed is None:
        fits = head_size % KERNEL_MULTIPLE == 0 and head_size <= KERNEL_LARGEST
        half = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") in HALF
        packed = lengths.device.type == "cuda" and fits and half
    return Layout.packed(lengths, width, total) if packed else Layout(lengths, width)


def attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Scaled dot-product attention of each sequence to itself (Vaswani 2017, eq. 1).

    Args:
        query, key, value: ``[batch, width, heads, size]``, or ``[total, heads, size]`` in a packed layout. In a padded
            one there may be fewer queries than keys.

    Returns:
        The shape of ``query``.
    """
    on_gpu = query.device.type == "cuda"
    if layout.real is not None:
        return (
            varlen(query, key, value, layout) if on_gpu and query.dtype in HALF else segments(query, key, value, layout)
        )
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))  # [B, heads, L, size]
    kernel = fused if on_gpu or not torch.is_grad_enabled() else plain
    return kernel(query, key, value, layout.bias).transpose(1, 2)


def plain(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """The reference, and on a CPU the fast way to learn; ``[…, heads, length, size]``, ``bias`` 0 or very negative."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5  # [B, heads, L, L]
    return torch.softmax(scores + bias, dim=-1).to(value.dtype) @ value


def fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """As `plain`, by torch's fused kernel: for a GPU in 32 bits, which the packed kernel does not take, and for a CPU
    that only scores (a third faster; its backward pass is the slower one)."""
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))


def varlen(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Packed sequences by the flash kernel for many lengths; ``[total, heads, size]`` in 16 bits on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    assert layout.starts is not None
    mixed = varlen_attn(query, key, value, layout.starts, layout.starts, layout.width, layout.width)
    assert isinstance(mixed, Tensor)
    return mixed


def segments(query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
    """Packed sequences one by one: what `varlen` is checked against, and what runs where it cannot."""
    assert layout.starts is not None
    mixed = []
    for start, end in zip(layout.starts[:-1].tolist(), layout.starts[1:].tolist(), strict=True):
        q, k, v = (tensor[start:end].transpose(0, 1) for tensor in (query, key, value))  # [heads, n, size]
        mixed.append(plain(q, k, v, q.new_zeros(1)).transpose(0, 1))
    return torch.cat(mixed)


def padding_bias(lengths: Tensor, width: int) -> Tensor:
    """``[batch, 1, 1, width]``: 0 for real positions, -1e4 for padding (representable in every float type)."""
    padding = torch.arange(width, device=lengths.device)[None, :] >= lengths[:, None]
    return padding[:, None, None, :].float() * -1e4
