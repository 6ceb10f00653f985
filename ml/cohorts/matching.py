"""Events by the predicates of tasks: every code is matched once, whatever number of tasks ask for it."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from ml.cohorts.aces import Plain, Predicate

FOUND: dict[str, type[pl.DataType] | pl.DataType] = {"subject_id": pl.Int64, "time": pl.Datetime("us")}


class Matches:
    """The events of a view that some predicates ask for."""

    def __init__(self, events: pl.DataFrame, predicates: Iterable[Predicate]) -> None:
        """
        Args:
            events: ``subject_id``, ``time``, ``code``, ``numeric_value``, in any order.
            predicates: those that will be asked for.
        """
        plains = sorted({plain for predicate in predicates for plain in predicate.any_of}, key=repr)
        number = {plain: i for i, plain in enumerate(plains)}
        codes = events.select(pl.col("code").unique())  # few, where rows are many
        named = [
            codes.filter(pl.col("code").str.contains(plain.pattern)).with_columns(plain=pl.lit(i, dtype=pl.Int32))
            for plain, i in number.items()
        ]
        empty = pl.DataFrame(schema={"code": pl.String, "plain": pl.Int32})
        found = events.select("subject_id", "time", "code", "numeric_value").join(pl.concat([empty, *named]), on="code")
        parts = found.drop("code").partition_by("plain", as_dict=True, include_key=False)
        self._parts = {plain: _within(plain, parts[i,]) for plain, i in number.items() if (i,) in parts}

    def of(self, predicate: Predicate) -> pl.DataFrame:
        """``subject_id``, ``time`` of each event of a predicate, or of each moment where it counts moments."""
        parts = [self._parts[plain] for plain in predicate.any_of if plain in self._parts]
        events = pl.concat([pl.DataFrame(schema=FOUND), *parts])
        return events.unique() if predicate.by_moment else events


def _within(plain: Plain, events: pl.DataFrame) -> pl.DataFrame:
    value, keep = pl.col("numeric_value"), pl.lit(True)
    if plain.least is not None:
        keep &= (value >= plain.least) if plain.least_counts else (value > plain.least)
    if plain.most is not None:
        keep &= (value <= plain.most) if plain.most_counts else (value < plain.most)
    return (events.filter(keep) if plain.valued else events).select(list(FOUND))
