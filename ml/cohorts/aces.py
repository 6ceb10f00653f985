"""The part of ACES that a task file may use, read into plain values.

ACES (https://eventstreamaces.readthedocs.io) describes windows around a trigger, here the index day of an eligible
subject. Vigil reads what can be asked of all tasks in one pass over the events; a file that asks for more is refused
with the place, never half understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

INDEX_CODE = "VIGIL//INDEX_DAY"
_AFTER_START = re.compile(r"start \+ (\d+)\s*(?:d|days)")
_BEFORE_END = re.compile(r"end - (\d+)\s*(?:d|days)")
_RANGE = re.compile(r"\(\s*(None|\d+)\s*,\s*(None|\d+)\s*\)")
_WINDOW = {"start", "end", "start_inclusive", "end_inclusive", "has", "label", "index_timestamp"}
_VALUES = ("value_min", "value_max", "value_min_inclusive", "value_max_inclusive")


class UnsupportedError(Exception):
    """What is wrong with a task file, in words that name the place."""


@dataclass(frozen=True)
class Plain:
    """Events by code, and by value where bounds are given.

    Attributes:
        pattern: regular expression that is searched in the code.
        least, most: bounds of ``numeric_value``; None: none.
        least_counts, most_counts: whether the bound itself is within.
    """

    pattern: str
    least: float | None = None
    most: float | None = None
    least_counts: bool = False
    most_counts: bool = False

    @property
    def valued(self) -> bool:
        return self.least is not None or self.most is not None


@dataclass(frozen=True)
class Predicate:
    """Events that satisfy any of some plain predicates.

    Attributes:
        name: as in the file.
        any_of: the plain predicates.
        by_moment: an ``or(…)`` of ACES, which counts moments; a plain predicate counts events.
    """

    name: str
    any_of: tuple[Plain, ...]
    by_moment: bool = False

    @property
    def pattern(self) -> str:
        """One regular expression of its codes."""
        if len(self.any_of) == 1:
            return self.any_of[0].pattern
        return "|".join(f"(?:{plain.pattern})" for plain in self.any_of)


@dataclass(frozen=True)
class Condition:
    """How many events of a predicate a window must hold.

    Attributes:
        window: the window's name, which people are shown as the reason.
        predicate: what is counted.
        days: length of the window, which ends at the prediction time; None: all that is known.
        least, most: bounds of the count, inclusive; None: none.
    """

    window: str
    predicate: Predicate
    days: int | None
    least: int | None
    most: int | None


@dataclass(frozen=True)
class Windows:
    """A task file's windows.

    Attributes:
        outcome: what the label counts.
        delay_days: days from the prediction time to the beginning of the label's window.
        horizon_days: days from the prediction time to its end.
        past: conditions on what is known at the prediction time.
        gap: conditions on the time between the prediction time and the label's window; ``days`` is null.
    """

    outcome: Predicate
    delay_days: int
    horizon_days: int
    past: tuple[Condition, ...]
    gap: tuple[Condition, ...]


def read_windows(content: dict[str, Any]) -> Windows:
    """Read the ACES part of a task file.

    Raises:
        UnsupportedError: it is no ACES task, or asks for more than is supported.
    """
    strange = set(content) - {"description", "metadata", "predicates", "patient_demographics", "trigger", "windows"}
    if strange:
        raise UnsupportedError(f"unknown key '{min(strange)}'")
    predicates = _predicates(_mapping(content, "predicates"))
    trigger = content.get("trigger")
    if trigger not in predicates or predicates[trigger].any_of != (Plain(f"^{re.escape(INDEX_CODE)}$"),):
        raise UnsupportedError(f"the trigger must be a predicate of the code {INDEX_CODE}")
    windows = {name: _mapping(content["windows"], name) for name in _mapping(content, "windows")}
    targets = [name for name, window in windows.items() if "label" in window]
    if len(targets) != 1:
        raise UnsupportedError("exactly one window must have a label")
    target = windows.pop(targets[0])
    delay, between = _delay(target, windows)
    outcome = _known(predicates, target["label"], targets[0])
    length = _days(_AFTER_START, target.get("end"), f"the end of window '{targets[0]}'", "start + Nd")
    _check_edges(targets[0], target)
    past = [one for name, window in windows.items() if name != between for one in _past(name, window, predicates)]
    gap = list(_conditions(between, windows[between], predicates, None)) if between else []
    target_has = list(_conditions(targets[0], target, predicates, None))
    if target_has:
        raise UnsupportedError(f"window '{targets[0]}' has the label, so it can have no 'has'")
    _check_prediction_time({**windows, targets[0]: target})
    return Windows(outcome, delay, delay + length, (*_demographics(content), *past), tuple(gap))


def _delay(target: dict[str, Any], windows: dict[str, dict[str, Any]]) -> tuple[int, str | None]:
    """Days until the label's window begins, and the name of the window between, if there is one."""
    start = str(target.get("start"))
    if start == "trigger":
        return 0, None
    name = start.removesuffix(".end")
    if start == name or name not in windows:
        raise UnsupportedError("the label's window must start at 'trigger', or where a window ends that starts there")
    if windows[name].get("start") != "trigger":
        raise UnsupportedError(f"window '{name}' must start at 'trigger'")
    _check_edges(name, windows[name])
    return _days(_AFTER_START, windows[name].get("end"), f"the end of window '{name}'", "start + Nd"), name


def _past(name: str, window: dict[str, Any], predicates: dict[str, Predicate]) -> Iterable[Condition]:
    if window.get("end") != "trigger":
        raise UnsupportedError(f"window '{name}' must end at 'trigger', or lie between it and the label's window")
    _check_edges(name, window)
    start = window.get("start")
    days = None if start is None else _days(_BEFORE_END, start, f"the start of window '{name}'", "null or 'end - Nd'")
    return _conditions(name, window, predicates, days)


def _conditions(
    name: str, window: dict[str, Any], predicates: dict[str, Predicate], days: int | None
) -> Iterable[Condition]:
    for predicate, bounds in (window.get("has") or {}).items():
        found = _RANGE.fullmatch(str(bounds))
        if found is None:
            raise UnsupportedError(f"'{bounds}' in window '{name}' is no range like (1, None)")
        least, most = (None if bound == "None" else int(bound) for bound in found.groups())
        yield Condition(name, _known(predicates, predicate, name), days, least, most)


def _demographics(content: dict[str, Any]) -> Iterable[Condition]:
    """ACES's patient_demographics: static facts that every subject must have."""
    for name, value in (content.get("patient_demographics") or {}).items():
        yield Condition(name, Predicate(name, (_plain(name, value),)), None, 1, None)


def _predicates(content: dict[str, Any]) -> dict[str, Predicate]:
    plain = {name: _plain(name, value) for name, value in content.items() if "expr" not in value}
    found = {name: Predicate(name, (value,)) for name, value in plain.items()}
    for name, value in content.items():
        if "expr" in value:
            parts = re.fullmatch(r"or\(([^()]+)\)", str(value["expr"]))
            names = [part.strip() for part in parts[1].split(",")] if parts else []
            if len(names) < 2 or not set(names) <= set(plain) or set(value) != {"expr"}:
                raise UnsupportedError(f"predicate '{name}' must be a code, or 'or(…)' of predicates that are")
            found[name] = Predicate(name, tuple(plain[part] for part in names), by_moment=True)
    return found


def _plain(name: str, value: dict[str, Any]) -> Plain:
    strange = set(value) - {"code", *_VALUES}
    if strange or "code" not in value:
        raise UnsupportedError(f"predicate '{name}' must have a code, and may have {', '.join(_VALUES)}")
    return Plain(
        _pattern(name, value["code"]),
        value.get("value_min"),
        value.get("value_max"),
        bool(value.get("value_min_inclusive")),
        bool(value.get("value_max_inclusive")),
    )


def _pattern(name: str, code: str | dict[str, Any]) -> str:
    """A predicate's codes as one regular expression: ACES knows a code, ``regex`` and ``any``."""
    if isinstance(code, str):
        return f"^{re.escape(code)}$"
    if isinstance(code, dict) and set(code) == {"any"} and code["any"]:
        return "|".join(f"^{re.escape(one)}$" for one in code["any"])
    if not isinstance(code, dict) or set(code) != {"regex"}:
        raise UnsupportedError(f"the code of predicate '{name}' must be a code, {{regex: …}} or {{any: […]}}")
    try:
        pl.Series(["code"]).str.contains(code["regex"])  # asked of polars here and in ACES
    except (pl.exceptions.PolarsError, TypeError):
        raise UnsupportedError(f"the regex of predicate '{name}' is none that polars knows") from None
    return str(code["regex"])


def _known(predicates: dict[str, Predicate], name: str, window: str) -> Predicate:
    if name not in predicates:
        raise UnsupportedError(f"window '{window}' names the predicate '{name}', which is not defined")
    return predicates[name]


def _days(shape: re.Pattern[str], text: object, place: str, wanted: str) -> int:
    found = shape.fullmatch(str(text))
    if found is None or not int(found[1]):
        raise UnsupportedError(f"{place} must be {wanted}")
    return int(found[1])


def _check_edges(name: str, window: dict[str, Any]) -> None:
    """A window holds its first moment and not its last: a day's first moment is when what bears a date alone falls."""
    strange = set(window) - _WINDOW
    if strange:
        raise UnsupportedError(f"unknown key '{min(strange)}' in window '{name}'")
    if window.get("start_inclusive") is not True or window.get("end_inclusive") is not False:
        raise UnsupportedError(f"window '{name}' must have start_inclusive: true and end_inclusive: false")


def _check_prediction_time(windows: dict[str, dict[str, Any]]) -> None:
    marked = [window for window in windows.values() if "index_timestamp" in window]
    if len(marked) != 1 or marked[0].get(str(marked[0]["index_timestamp"])) != "trigger":
        raise UnsupportedError("exactly one window must have an index_timestamp, which names its edge at 'trigger'")


def _mapping(content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, dict):
        raise UnsupportedError(f"'{key}' must be a mapping")
    return value
