"""The switches of the model family, and which of them cannot go together. Shared by presets and config.json."""

from __future__ import annotations

from typing import Literal, Protocol

from ml.common.errors import ConfigError

Norm = Literal["pre", "post"]
Visit = Literal["none", "number", "alternating"]
Age = Literal["none", "table", "time2vec"]
Time = Literal["none", "before", "absolute"]
Scales = Literal["vigil", "core_behrt"]
Position = Literal["none", "learned", "visit", "rope"]
FeedForward = Literal["gelu", "swiglu", "swiglu_core_behrt"]
Pooling = Literal["first", "mean", "max", "sum", "attention", "bigru", "first_mean"]
HeadKind = Literal["binary", "sum", "mask"]
Codes = Literal["full", "truncated"]
WIDE_POOLING = ("bigru", "first_mean")  # two vectors side by side


class Switches(Protocol):
    """What of a shape is checked."""

    @property
    def hidden(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def position(self) -> Position: ...
    @property
    def pooling(self) -> Pooling: ...
    @property
    def head(self) -> HeadKind: ...
    @property
    def age_powers(self) -> bool: ...
    @property
    def linear_path(self) -> bool: ...


def check(shape: Switches, next_visit: bool) -> None:
    """Refuse what cannot be built.

    Raises:
        ConfigError: names the combination and what to change.
    """
    if shape.hidden % shape.heads:
        raise ConfigError(
            f"hidden {shape.hidden} is not a multiple of heads {shape.heads}", "choose a multiple, or fewer heads"
        )
    if shape.position == "rope" and shape.hidden // shape.heads % 2:
        raise ConfigError(
            f"position 'rope' turns pairs, but a head has {shape.hidden // shape.heads} features",
            "choose hidden and heads so that their quotient is even",
        )
    if shape.head == "mask" and not next_visit:
        raise ConfigError("the head 'mask' reads a [MASK] that no form appends", "set next_visit in the form")
    if shape.head == "sum" and shape.pooling in WIDE_POOLING:
        raise ConfigError(
            f"the head 'sum' decodes one hidden vector, the pooling '{shape.pooling}' gives two",
            "pool by first, mean, max, sum or attention",
        )
    if shape.head != "binary" and (shape.age_powers or shape.linear_path):
        raise ConfigError(f"the head '{shape.head}' has no place for age_powers or a linear_path", "set both to false")
    if shape.linear_path and not shape.age_powers:
        raise ConfigError("linear_path is fitted together with the age", "set age_powers too, or neither")
