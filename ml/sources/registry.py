"""Sources by name."""

from __future__ import annotations

from ml.common.errors import ConfigError
from ml.sources.base import Source


def open_source(name: str) -> Source:
    """The source of a name (setting ``VIGIL_SOURCE``).

    Raises:
        ConfigError: there is no such source.
    """
    from ml.sources.mimic_iv import MIMIC_IV
    from ml.sources.omop import OMOP

    sources: dict[str, Source] = {source.name: source for source in (OMOP, MIMIC_IV)}
    if name not in sources:
        raise ConfigError(f"there is no source named '{name}'", f"set VIGIL_SOURCE to one of {', '.join(sources)}")
    return sources[name]
