"""The transformer encoder (Vaswani 2017), layers normalised before (default) or after each part."""

from __future__ import annotations

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

    def forward(self, hidden: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        tokens, width = hidden.shape[:-1], hidden.shape[-1]  # tokens: [B, L] padded, [T] packed
        split = self.query_key_value(hidden).view(*tokens, 3, self.heads, width // self.heads)
        query, key, value = split.unbind(-3)  # [..., heads, size]
        if rotation is not None:
            query, key = rotation.turn(query), rotation.turn(key)
        return self.out(attention(query, key, value, layout).reshape(*tokens, width))


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

    def forward(self, hidden: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        if self.pre:
            hidden = hidden + self.attention(self.norm_attention(hidden), layout, rotation)
            return hidden + self.dropout(self.feedforward(self.norm_feedforward(hidden)))
        hidden = self.norm_attention(hidden + self.attention(hidden, layout, rotation))
        return self.norm_feedforward(hidden + self.dropout(self.feedforward(hidden)))


class Encoder(nn.Module):
    """``[batch, length, hidden]`` → the same shape. Between the two, a packed layout has real tokens only."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden) if config.norm == "pre" else nn.Identity()
        self.head_size = config.hidden // config.heads
        self.rotary = config.position == "rope"

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        hidden = layout.pack(hidden)
        rotation = Rotation.of(layout.places(), self.head_size) if self.rotary else None
        for layer in self.layers:
            hidden = layer(hidden, layout, rotation)
        return layout.unpack(self.norm(hidden))
