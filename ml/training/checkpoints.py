"""Checkpoints of a stage: whole and proven by digests, or not there.

A checkpoint is a folder named after its step: ``tensors.safetensors``, ``state.json`` and, written last,
``manifest.json`` with the digests of both. It is made under another name, flushed to the disk and renamed; the last
two are kept, so that one that was damaged later costs minutes and not the training.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ml.common.files import new_directory, read_json, sha256_file, write_json

log = logging.getLogger(__name__)

KEPT = 2
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class DamagedError(Exception):
    """A checkpoint is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """What a stage goes on from: ``tensors`` by name, and ``state`` as JSON."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix.``, without it."""
        return {name.removeprefix(f"{prefix}."): t for name, t in self.tensors.items() if name.startswith(f"{prefix}.")}


class Checkpoints:
    """The checkpoints of one stage with one set of inputs.

    Args:
        folder: of the stage; it is removed when the stage is done.
        inputs: digest of all that the stage depends on. Checkpoints of other inputs are never taken.
    """

    def __init__(self, folder: Path, inputs: str) -> None:
        self.folder, self.inputs = folder, inputs
        self.own = folder / inputs[:12]

    def save(self, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Write a checkpoint and drop all but the last two."""
        with new_directory(self.own / f"{step:09d}") as working:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, working / TENSORS)
            write_json(working / STATE, state)
            digests = {name: sha256_file(working / name) for name in (TENSORS, STATE)}
            write_json(working / MANIFEST, {"inputs": self.inputs, "step": step, "files": digests})
        for path in self._found()[KEPT:]:
            shutil.rmtree(path)

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole, or None; of each damaged one it warns."""
        for path in self._found():
            try:
                return self._read(path)
            except DamagedError as error:
                log.warning("the checkpoint %s is damaged (%s): the one before it is used", path, error)
        return None

    def remove(self) -> None:
        """The stage is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear_unfinished(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.own.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)

    def _found(self) -> list[Path]:
        """Folders of checkpoints, newest first."""
        return sorted((path for path in self.own.glob("[0-9]*") if path.is_dir()), reverse=True)

    def _read(self, path: Path) -> Checkpoint:
        try:
            manifest = read_json(path / MANIFEST)
            if manifest["inputs"] != self.inputs or manifest["step"] != int(path.name):
                raise DamagedError("it is of another training")
            for name, digest in manifest["files"].items():
                if sha256_file(path / name) != digest:
                    raise DamagedError(f"{name} is not what was written")
            return Checkpoint(int(path.name), load_file(path / TENSORS), read_json(path / STATE))
        except FileNotFoundError as error:
            raise DamagedError(f"{Path(error.filename).name} is absent") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            raise DamagedError(f"{MANIFEST} does not parse") from None
        except (OSError, SafetensorError) as error:
            raise DamagedError(type(error).__name__) from None


def training_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, moments and the states of torch's own random generators."""
    tensors: dict[str, Tensor] = {f"model.{name}": p for name, p in model.named_parameters()}  # tied ones once
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in moments.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def restore_training(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put back what `training_tensors` gave, in place: copies of the model that share its weights see it too."""
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in checkpoint.under("model").items():
            weights[name].copy_(tensor)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in checkpoint.under("optimizer").items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    random = checkpoint.under("random")
    torch.set_rng_state(random["cpu"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
