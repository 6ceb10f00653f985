"""A trained model's folder: config.json, model.safetensors, vocabulary.json, training.json."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.common.files import new_directory, read_json, sha256_file, write_json
from ml.sequences.vocabulary import Vocabulary

if TYPE_CHECKING:
    from ml.models.medbert import MedBert

RECORD = "training.json"


def save_model(folder: Path, model: MedBert, vocabulary: Vocabulary, record: dict[str, Any]) -> None:
    """Write a model's folder whole; ``training.json`` gets the digest of the weights."""
    from safetensors.torch import save_file

    with new_directory(folder) as working:
        write_json(working / "config.json", model.config.to_dict())
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(tensors, working / "model.safetensors", metadata={"format": "pt"})
        vocabulary.save(working / "vocabulary.json")
        digest = sha256_file(working / "model.safetensors")
        write_json(working / RECORD, {**record, "vocabulary": vocabulary.digest, "weights": digest})


def finished(folder: Path, inputs: str) -> bool:
    """Whether a folder was written by a training with these inputs."""
    record = folder / RECORD
    return record.exists() and read_json(record).get("inputs") == inputs
