"""Pages for people: one HTML file each, style inside, no script, no network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

CSS = Path(__file__).parent / "templates" / "report.css"


def environment(*folders: Path) -> Environment:
    """Templates of some folders: everything is escaped, an unknown name is an error; ``css`` is a global."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["css"] = markup(CSS.read_text())
    return found


def markup(text: str) -> Any:
    """Text that is not escaped again: from ``ml.common.svg``, which escapes, or shipped with Vigil."""
    from markupsafe import Markup

    return Markup(text)
