"""Tasks: ACES files read into what eligibility, labels and heads need to know."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ml.cohorts.aces import INDEX_CODE, Condition, Predicate, UnsupportedError, read_windows
from ml.common.errors import ConfigError
from ml.settings import get_settings

FOLDER = Path(__file__).parent / "tasks"
CORE_BEHRT = "core_behrt"

__all__ = ["CORE_BEHRT", "FOLDER", "INDEX_CODE", "Task", "load_task", "load_tasks", "task_names", "tasks_of"]


@dataclass(frozen=True)
class Scope:
    """What ACES cannot say about who is in scope: the file's ``metadata``.

    Attributes:
        minimum_age: in completed years at the prediction time.
        look_back_days: the time before it in which at least one clinical event must lie.
        minimum_history_days: how long before it the first clinical event must lie, at least.
        source: where the definition comes from.
        collections: names of experiments that the task belongs to.
    """

    minimum_age: int = 18
    look_back_days: int = 730
    minimum_history_days: int = 0
    source: str = ""
    collections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One outcome to predict.

    Attributes:
        name: the file's name without suffix.
        description: one line for people.
        path: the file, the only definition.
        target: the events that are the outcome.
        delay_days: the data-arrival delay: days from the prediction time until an outcome counts.
        horizon_days: days from the prediction time to the end of the label's window.
        past: conditions on what is known at the prediction time: exclusion of a prior outcome, population.
        gap: conditions on the time of the delay, which the label needs and no prediction can know.
        scope: age, look-back, history, source.
    """

    name: str
    description: str
    path: Path
    target: Predicate
    delay_days: int
    horizon_days: int
    past: tuple[Condition, ...]
    gap: tuple[Condition, ...]
    scope: Scope

    @property
    def outcome(self) -> str:
        """Regular expression over the codes of the outcome."""
        return self.target.pattern

    @property
    def excludes_prior(self) -> bool:
        """Whether a subject who ever had the outcome is out of scope."""
        return any(self.is_prior(condition) and condition.days is None for condition in self.past)

    def is_prior(self, condition: Condition) -> bool:
        """Whether a condition excludes those who had the outcome before."""
        return condition.predicate == self.target and condition.most == 0


def task_names() -> list[str]:
    """The tasks there are, the hospital's own among them, sorted."""
    return sorted(_files())


def tasks_of(collection: str) -> tuple[str, ...]:
    """Names of the tasks of a collection, such as `CORE_BEHRT`, sorted."""
    return tuple(name for name in task_names() if collection in load_task(name).scope.collections)


def load_task(name: str, folder: Path | None = None) -> Task:
    """Read a task.

    Args:
        name: the file's name without suffix.
        folder: where to look; by default Vigil's own folder and VIGIL_TASK_FOLDER.

    Raises:
        ConfigError: there is no such task, or its file is not of the shape Vigil supports.
    """
    files = _files() if folder is None else _in(folder)
    if name not in files:
        raise ConfigError(f"there is no task '{name}'", f"name one of: {', '.join(sorted(files))}")
    path = files[name]
    try:
        content = yaml.safe_load(path.read_text())
        windows = read_windows(content if isinstance(content, dict) else {})
        scope = _scope(content.get("metadata") or {})
    except (UnsupportedError, yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        cause = str(error) if isinstance(error, UnsupportedError) else "it is no ACES task"
        raise ConfigError(
            f"the task file {path.name} cannot be used, {cause}", "see docs/how-to/add-a-task.md for its shape"
        ) from None
    return Task(
        name=path.stem,
        description=str(content.get("description", path.stem)),
        path=path,
        target=windows.outcome,
        delay_days=windows.delay_days,
        horizon_days=windows.horizon_days,
        past=windows.past,
        gap=windows.gap,
        scope=scope,
    )


def load_tasks(names: tuple[str, ...]) -> tuple[Task, ...]:
    """Read several tasks, in order."""
    return tuple(load_task(name) for name in names)


def _scope(metadata: dict[str, Any]) -> Scope:
    """The metadata block.

    Raises:
        UnsupportedError: an unknown key, or a value of another type.
    """
    known = {field.name: getattr(Scope(), field.name) for field in fields(Scope)}
    for key, value in metadata.items():
        if key not in known:
            raise UnsupportedError(f"'{key}' in metadata is none of {', '.join(known)}")
        if key == "collections":
            good = isinstance(value, list) and all(isinstance(one, str) for one in value)
        else:
            good = type(value) is type(known[key]) and (isinstance(value, str) or value >= 0)
        if not good:
            wanted = {int: "a whole number, 0 or more", str: "a text", tuple: "a list of texts"}
            raise UnsupportedError(f"'{key}' in metadata must be {wanted[type(known[key])]}")
    values: dict[str, Any] = {**metadata, "collections": tuple(metadata.get("collections", ()))}
    return Scope(**values)


def _files() -> dict[str, Path]:
    """Task files by name.

    Raises:
        ConfigError: the hospital's own folder is absent, or has a name of Vigil's.
    """
    own = get_settings().task_folder
    if own is None:
        return _in(FOLDER)
    if not own.is_dir():
        raise ConfigError(f"VIGIL_TASK_FOLDER names {own}, which is no directory", "make it, or unset the variable")
    ours, theirs = _in(FOLDER), _in(own)
    both = sorted(set(ours) & set(theirs))
    if both:
        raise ConfigError(f"the task '{both[0]}' in {own} has the name of one of Vigil's", "give it another name")
    return {**ours, **theirs}


def _in(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.yaml")}
