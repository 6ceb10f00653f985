"""Tasks: ACES files read into what eligibility, labels and heads need to know."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ml.common.errors import ConfigError

FOLDER = Path(__file__).parent / "tasks"
INDEX_CODE = "VIGIL//INDEX_DAY"
_HORIZON = re.compile(r"start \+ (\d+)\s*(?:d|days)$")


@dataclass(frozen=True)
class Task:
    """One outcome to predict.

    Attributes:
        name: the file's name without suffix.
        description: one line for people.
        path: the ACES file, the only definition of the outcome, the horizon and the exclusion.
        outcome: regular expression over event codes.
        codes: regular expression of all codes that a predicate of the file names.
        any_event: whether the file counts events of any code.
        horizon_days: length of the label window, from the prediction time.
        excludes_prior: whether a subject with an earlier outcome is out of scope.
    """

    name: str
    description: str
    path: Path
    outcome: str
    codes: str
    any_event: bool
    horizon_days: int
    excludes_prior: bool


def task_names() -> list[str]:
    """The tasks there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_task(name: str, folder: Path = FOLDER) -> Task:
    """Read a task.

    Raises:
        ConfigError: there is no such task, or its file is not of the shape Vigil supports.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.yaml")))
        raise ConfigError(f"there is no task '{name}'", f"set VIGIL_TASKS to some of: {known}")
    try:
        return _parse(path, yaml.safe_load(path.read_text()))
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError, yaml.YAMLError):
        raise ConfigError(
            f"the task file {path.name} is not an ACES task with one label window 'start + Nd' after its trigger",
            f"write it like {FOLDER / 'heart_failure.yaml'}",
        ) from None


def load_tasks(names: tuple[str, ...]) -> tuple[Task, ...]:
    """Read several tasks, in order."""
    return tuple(load_task(name) for name in names)


def _parse(path: Path, content: dict[str, Any]) -> Task:
    windows: dict[str, dict[str, Any]] = content["windows"]
    target = next(window for window in windows.values() if "label" in window)
    predicate = target["label"]
    patterns = {name: _pattern(value["code"]) for name, value in content["predicates"].items() if "code" in value}
    found = _HORIZON.fullmatch(target["end"])
    if found is None or content["predicates"][content["trigger"]]["code"] != INDEX_CODE:
        raise ValueError
    prior = any(
        window is not target and str(window.get("has", {}).get(predicate, "")).replace(" ", "") == "(None,0)"
        for window in windows.values()
    )
    text = path.read_text()
    return Task(
        name=path.stem,
        description=content.get("description", path.stem),
        path=path,
        outcome=patterns[predicate],
        codes="|".join(f"(?:{pattern})" for pattern in patterns.values()),
        any_event=any(word in text for word in ("_ANY_EVENT", "_RECORD_START", "_RECORD_END")),
        horizon_days=int(found[1]),
        excludes_prior=prior,
    )


def _pattern(code: str | dict[str, Any]) -> str:
    """A predicate's codes as one regular expression: ACES knows a code, ``regex`` and ``any``."""
    if isinstance(code, str):
        found = f"^{re.escape(code)}$"
    elif "any" in code:
        found = "|".join(f"^{re.escape(one)}$" for one in code["any"])
    else:
        found = code["regex"]
    re.compile(found)
    return found
