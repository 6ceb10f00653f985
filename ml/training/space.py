"""What a search may change of a preset, in which bounds, and the preset with the values that it found."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml.common.files import read_json, sha256_json
from ml.models import presets
from ml.models.presets import Preset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dimension:
    """One value of a preset.

    Attributes:
        part: of the preset: model, pretraining or finetuning.
        name: of the value in it.
        low, high: bounds, as multiples of the preset's value where ``relative``.
        log: whether it is drawn on a logarithmic scale.
    """

    part: str
    name: str
    low: float
    high: float
    log: bool = False
    relative: bool = False

    @property
    def key(self) -> str:
        return f"{self.part}.{self.name}"

    def bounds(self, preset: Preset) -> tuple[float, float]:
        """Lowest and highest value, for a preset; its own is always within."""
        own = self.own(preset)
        low, high = (self.low * own, self.high * own) if self.relative else (self.low, self.high)
        return min(low, own), max(high, own)

    def own(self, preset: Preset) -> float:
        """The preset's value."""
        return float(getattr(getattr(preset, self.part), self.name))


SPACE = (
    Dimension("model", "dropout", 0.0, 0.3),
    Dimension("pretraining", "learning_rate", 1 / 3, 3.0, log=True, relative=True),
    Dimension("pretraining", "masked", 0.1, 0.4),
    Dimension("finetuning", "learning_rate", 1 / 4, 4.0, log=True, relative=True),
    Dimension("finetuning", "weight_decay", 0.001, 0.2, log=True),
)


def own_values(preset: Preset) -> dict[str, float]:
    """A preset's values of the space."""
    return {dimension.key: dimension.own(preset) for dimension in SPACE}


def drawn(preset: Preset, draw: Callable[[Dimension, float, float], float]) -> Preset:
    """A preset with values that ``draw`` gives for each dimension and its bounds."""
    return changed(preset, {dimension.key: draw(dimension, *dimension.bounds(preset)) for dimension in SPACE})


def changed(preset: Preset, values: dict[str, float]) -> Preset:
    """A preset with other values, checked as the file's were."""
    changes: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        part, _, name = key.partition(".")
        changes.setdefault(part, {})[name] = value
    return presets.changed(preset, changes)


def best_path(run: Path) -> Path:
    """Where a search leaves the best values."""
    return run / "search" / "best.json"


def trials_path(run: Path) -> Path:
    """Where a search lists its finished trials."""
    return run / "search" / "trials.json"


def base_of(preset: Preset) -> str:
    """What values were searched for: others are no use to another preset."""
    return sha256_json(preset.model_dump())


def tuned(preset: Preset, run: Path) -> Preset:
    """The preset with the values of the run's search, if there was one for this preset."""
    found = read_json(best_path(run)) if best_path(run).exists() else {}
    if found.get("base") != base_of(preset):
        return preset
    log.info("values of the search: %s", ", ".join(f"{key} {value:.3g}" for key, value in found["values"].items()))
    return changed(preset, found["values"])
