"""Models: a preset and a vocabulary come in; a Med-BERT encoder with its decoder and outcome heads goes out.

A trained model is a folder: config.json, model.safetensors, vocabulary.json, training.json. The modules that need
torch (`medbert`, `config`, …) are imported by name where they are used, so that importing this package stays light.
"""

from ml.models.presets import Preset, load_preset, preset_names

__all__ = ["Preset", "load_preset", "preset_names"]
