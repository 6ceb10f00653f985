"""Sources by name: a folder of ``ml/sources``, or any package that holds one."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules

from ml.common.errors import ConfigError
from ml.sources.base import SqlSource

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def open_source(name: str) -> SqlSource:
    """The source of a name (setting ``VIGIL_SOURCE``): a folder of ``ml/sources``, or the dotted path of a package
    elsewhere on the Python path.

    Raises:
        ConfigError: there is no such source, or the package does not hold exactly one.
    """
    module = name if "." in name else f"ml.sources.{name}"
    if not NAME.fullmatch(name) or not _exists(module):
        known = ", ".join(source for source in _folders() if _sources_in(f"ml.sources.{source}"))
        raise ConfigError(
            f"there is no source named '{name}'",
            f"set VIGIL_SOURCE to one of {known}, or to the path of a package of your own (hospital.lab)",
        )
    found = _sources_in(module)
    if len(found) != 1:
        raise ConfigError(
            f"{module} holds {len(found)} sources", "let it hold exactly one SqlSource (docs/how-to/add-a-source.md)"
        )
    return found[0]


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _folders() -> list[str]:
    import ml.sources

    return sorted(module.name for module in iter_modules(ml.sources.__path__) if module.ispkg)


def _sources_in(module: str) -> list[SqlSource]:
    return [value for value in vars(import_module(module)).values() if isinstance(value, SqlSource)]
