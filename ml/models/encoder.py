"""The transformer encoder (Vaswani 2017), layers normalised before (default) or after each part."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.models.attention import Layout, Rotation, attention
from ml.models.config import MedBertConfig
from ml.models.dropout import Dropout


class SelfAttention(nn.Module):
    """Multi-head self-attention; queries and keys may be turned by their place (RoPE, Su 2021)."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)

    def forward(self, hidden: Tensor, layout: Layout, rotation: Rotation | None, at: Tensor | None = None) -> Tensor:
        """``[B, L, hidden]`` padded or ``[T, hidden]`` packed → the same; with ``at [B]`` → ``[B, 1, hidden]``."""
        tokens, width = hidden.shape[:-1], hidden.shape[-1]
        if at is not None:
            return self._at(hidden, layout, rotation, at)
        split = self.query_key_value(hidden).view(*tokens, 3, self.heads, width // self.heads)
        query, key, value = split.unbind(-3)  # [..., heads, size]
        if rotation is not None:
            query, key = rotation.turn(query), rotation.turn(key)
        return self.out(attention(query, key, value, layout).reshape(*tokens, width))

    def _at(self, hidden: Tensor, layout: Layout, rotation: Rotation | None, at: Tensor) -> Tensor:
        """What one place of each sequence sees: queries of these places alone."""
        batch, length, width = hidden.shape
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        size = (self.heads, width // self.heads)
        query = functional.linear(picked(hidden, at), weight[:width], bias[:width]).view(batch, 1, *size)
        pairs = functional.linear(hidden, weight[width:], bias[width:]).view(batch, length, 2, *size)
        key, value = pairs.unbind(-3)
        if rotation is not None:
            query, key = rotation.at(at).turn(query), rotation.turn(key)
        return self.out(attention(query, key, value, layout).reshape(batch, 1, width))


class SwiGLU(nn.Module):
    """``W3(silu(W1 x) * W2 x)`` without biases (Shazeer 2020, eq. 6)."""

    def __init__(self, outer: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(outer, inner, bias=False)
        self.value = nn.Linear(outer, inner, bias=False)
        self.out = nn.Linear(inner, outer, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.out(functional.silu(self.gate(hidden)) * self.value(hidden))


def feedforward(config: MedBertConfig) -> nn.Module:
    """``[..., hidden]`` → the same shape.

    CORE-BEHRT puts a whole SwiGLU of the inner width where the activation was, between the two usual linear maps.
    """
    hidden, inner = config.hidden, config.feedforward
    if config.feedforward_kind == "swiglu":
        return SwiGLU(hidden, inner)
    activation = nn.GELU() if config.feedforward_kind == "gelu" else SwiGLU(inner, inner)
    return nn.Sequential(nn.Linear(hidden, inner), activation, nn.Linear(inner, hidden))


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual path."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = SelfAttention(config)
        self.feedforward = feedforward(config)
        self.norm_attention = nn.LayerNorm(config.hidden)
        self.norm_feedforward = nn.LayerNorm(config.hidden)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, layout: Layout, rotation: Rotation | None, at: Tensor | None = None) -> Tensor:
        """As `SelfAttention`."""
        asked = hidden if at is None else picked(hidden, at)
        if self.pre:
            hidden = asked + self.attention(self.norm_attention(hidden), layout, rotation, at)
            return hidden + self.dropout(self.feedforward(self.norm_feedforward(hidden)))
        hidden = self.norm_attention(asked + self.attention(hidden, layout, rotation, at))
        return self.norm_feedforward(hidden + self.dropout(self.feedforward(hidden)))


class Encoder(nn.Module):
    """``[batch, length, hidden]`` → the same shape. Between the two, a packed layout has real tokens only.

    Where one place of each sequence is all that is asked for, ``[batch, 1, hidden]`` comes out: the last layer then has
    keys and values of every place, and everything else of these places alone.
    """

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden) if config.norm == "pre" else nn.Identity()
        self.head_size = config.hidden // config.heads
        self.rotary = config.position == "rope"

    def forward(self, hidden: Tensor, layout: Layout, at: Tensor | None = None) -> Tensor:
        hidden = layout.pack(hidden)
        rotation = Rotation.of(layout.places(), self.head_size) if self.rotary else None
        shortened = at is not None and layout.real is None and len(self.layers) > 0
        for number, layer in enumerate(self.layers, 1):
            hidden = layer(hidden, layout, rotation, at if shortened and number == len(self.layers) else None)
        hidden = layout.unpack(self.norm(hidden))
        return hidden if at is None or shortened else picked(hidden, at)


def picked(hidden: Tensor, at: Tensor) -> Tensor:
    """``[batch, 1, hidden]``: the place ``at [batch]`` of each sequence."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), at][:, None]
