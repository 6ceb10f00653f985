"""The transformer encoder (Vaswani 2017), layers normalised before (default) or after each part."""

from __future__ import annotations

from torch import Tensor, nn

from ml.models.attention import attention
from ml.models.config import MedBertConfig
from ml.models.dropout import Dropout


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.hidden, 3 * config.hidden)
        self.out = nn.Linear(config.hidden, config.hidden)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        query, key, value = self.query_key_value(hidden).view(shape).permute(2, 0, 3, 1, 4)  # [B, heads, L, size]
        mixed = attention(query, key, value, bias).transpose(1, 2).reshape(batch, length, width)
        return self.out(mixed)


class Layer(nn.Module):
    """Attention and feed-forward, each with a residual path."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = SelfAttention(config)
        self.feedforward = nn.Sequential(
            nn.Linear(config.hidden, config.feedforward), nn.GELU(), nn.Linear(config.feedforward, config.hidden)
        )
        self.norm_attention = nn.LayerNorm(config.hidden)
        self.norm_feedforward = nn.LayerNorm(config.hidden)
        self.dropout = Dropout(config.dropout)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        if self.pre:
            hidden = hidden + self.attention(self.norm_attention(hidden), bias)
            return hidden + self.dropout(self.feedforward(self.norm_feedforward(hidden)))
        hidden = self.norm_attention(hidden + self.attention(hidden, bias))
        return self.norm_feedforward(hidden + self.dropout(self.feedforward(hidden)))


class Encoder(nn.Module):
    """``[batch, length, hidden]`` → the same shape."""

    def __init__(self, config: MedBertConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden) if config.norm == "pre" else nn.Identity()

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return self.norm(hidden)
