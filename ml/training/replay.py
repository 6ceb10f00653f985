"""What a warm pretraining sees: patients with something new since the model it starts from, and old ones replayed.

Of new records alone a model forgets the rest (McCloskey and Cohen 1989); of all alike it sees little that is new.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml.common.files import read_json
from ml.models.files import RECORD
from ml.sequences import Item, Sequences
from ml.sequences.packing import Int64
from ml.training.sampler import Draw


def last_day_seen(initial: Path) -> date | None:
    """t1 of the run that trained a model: it has seen nothing later. None where its record does not say."""
    days = read_json(initial / RECORD).get("index_days")
    return date.fromisoformat(days[0]) if days else None


def has_news(source: Item, days: int) -> npt.NDArray[np.bool_]:
    """``[n]``: whether a sequence has an event in the last ``days`` days before its index day.

    By the day of the event: what became known late of earlier days does not count.
    """
    found = np.zeros(source.row.size, bool)
    for number, store in enumerate(source.stores):
        mine = source.store == number
        found[mine] = _news(store, source.row[mine], days)
    return found


def _news(store: Sequences, rows: Int64, days: int) -> npt.NDArray[np.bool_]:
    newest = store.offsets[rows + 1] - 1  # events are in the order of time
    recent: npt.NDArray[np.bool_] = (store.visits[newest] > 0) & (store.days[newest] < days)
    return recent


def mixed(news: npt.NDArray[np.bool_], replay: float) -> tuple[Draw | None, npt.NDArray[np.float64]]:
    """Draw each epoch all sequences with news, and of the others so many that they are a share of it.

    Args:
        news: ``[n]``.
        replay: the share of the others, below 1.

    Returns:
        What draws an epoch, None where nothing is new or all is: then every epoch takes all; and ``[n]`` how likely
        each sequence is in an epoch.
    """
    new, others = np.flatnonzero(news), np.flatnonzero(~news)
    count = min(others.size, round(new.size * replay / (1.0 - replay)))
    if not new.size or count == others.size:
        return None, np.ones(news.size)

    def draw(rng: np.random.Generator) -> Int64:
        return np.concatenate((new, rng.choice(others, count, replace=False)))

    return draw, np.where(news, 1.0, count / others.size)
