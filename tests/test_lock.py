"""requirements.txt: complete, the same on every platform, without gigabytes that a machine without a GPU never uses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GPU_ONLY = re.compile(r"nvidia|triton|cuda|cudnn|cupy|rocm", re.IGNORECASE)


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: str) -> dict[str, str]:
    """Version by package. Every line must be an exact pin, without options or addresses."""
    found = {}
    for line in lock.splitlines():
        requirement = line.split(";")[0].split("#")[0].strip()
        if not requirement:
            continue
        match = re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", requirement)
        assert match, f"not an exact pin: {line}"
        found[canonical(match[1])] = match[2]
    return found


def direct_dependencies(project: str) -> list[str]:
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in tomllib.loads(project)["project"]["dependencies"]]
    return [canonical(name[0]) for name in names if name]


def gpu_packages(locked: dict[str, str]) -> list[str]:
    return [name for name in locked if GPU_ONLY.search(name)]


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    return pins((ROOT / "requirements.txt").read_text())


def test_the_lock_holds_no_gpu_packages(locked: dict[str, str]) -> None:
    assert gpu_packages(locked) == []
    assert gpu_packages(pins("numpy==2.0\nnvidia-cudnn-cu12==9.1\ntriton==3.5.0")) == ["nvidia-cudnn-cu12", "triton"]


def test_torch_is_pinned_without_a_local_suffix(locked: dict[str, str]) -> None:
    assert locked["torch"] == "2.13.0"
    assert [name for name, version in locked.items() if "+" in version] == []


def test_every_direct_dependency_is_in_the_lock(locked: dict[str, str]) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    wanted = direct_dependencies(project)
    assert len(wanted) > 20
    assert [name for name in wanted if name not in locked] == []
    assert direct_dependencies('[project]\ndependencies = ["Absent_Package>=1"]')[0] not in locked


def test_exact_pins_of_the_project_are_those_of_the_lock(locked: dict[str, str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    exact = dict(line.split("==") for line in project if "==" in line)
    assert {canonical(name): version for name, version in exact.items()} == {
        canonical(name): locked[canonical(name)] for name in exact
    }


@pytest.mark.parametrize(
    "line", ["numpy>=2", "--index-url https://example.org", "numpy @ file:///tmp/numpy.whl", "numpy"]
)
def test_a_line_that_is_no_exact_pin_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match="not an exact pin"):
        pins(line)
