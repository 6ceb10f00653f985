"""Models: a preset and a vocabulary come in; a Med-BERT encoder with its decoder and outcome heads goes out.

A trained model is a folder: config.json, model.safetensors, vocabulary.json, training.json; `hugging_face` reads and
writes the first two with Hugging Face's classes. The modules that need torch (`medbert`, …) are imported by name where
they are used, so that importing this package stays light.
"""

from ml.models.presets import Preset, load_preset, preset_names

__all__ = ["Preset", "load_preset", "preset_names"]
