"""Publication: what leaves the restricted side, and how it becomes current.

In: scores and interconnection matrices of a day, in files that hold subject ids and small counts. Out: rows under
pseudonyms and without small counts, in a table of their own, audited, attached to the published table under a
release id, and made current by one compare-and-set of a pointer. A publication that was overtaken, doubled or killed
changes nothing that is current; a backfilled day makes its release and leaves what is current alone. Once a score's
horizon has passed, what happened is laid beside what was said (``surveillance``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml.publication.publish import publish_interconnections, publish_risk_scores
    from ml.publication.releases import rollback
    from ml.publication.surveillance import watch_outcomes
    from ml.publication.types import Release

__all__ = ["Release", "publish_interconnections", "publish_risk_scores", "rollback", "watch_outcomes"]

_HOME = {"Release": "types", "rollback": "releases", "watch_outcomes": "surveillance"}


def __getattr__(name: str) -> Any:
    """Import a name where it lives when it is first asked for: the command line starts without all this."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'publish')}"), name)
