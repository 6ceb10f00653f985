"""Chapters and names of codes, for people who read a report."""

from __future__ import annotations

from bisect import bisect_right

from ml.common.drug_and_lab_names import ATC, LOINC

# First category of each ICD-10-CM chapter (CDC/NCHS tabular list) and its short name; ICD-9-CM's below.
_ICD10 = (
    ("A00", "Infections"),
    ("C00", "Neoplasms"),
    ("D50", "Blood, immunity"),
    ("E00", "Endocrine, metabolic"),
    ("F00", "Mental"),
    ("G00", "Nervous system"),
    ("H00", "Eye"),
    ("H60", "Ear"),
    ("I00", "Circulation"),
    ("J00", "Respiration"),
    ("K00", "Digestion"),
    ("L00", "Skin"),
    ("M00", "Musculoskeletal"),
    ("N00", "Genitourinary"),
    ("O00", "Pregnancy"),
    ("P00", "Perinatal"),
    ("Q00", "Congenital"),
    ("R00", "Symptoms"),
    ("S00", "Injury"),
    ("U00", "Special"),
    ("V00", "External causes"),
    ("Z00", "Contact factors"),
)
_ICD9 = (
    ("001", "Infections"),
    ("140", "Neoplasms"),
    ("240", "Endocrine, metabolic"),
    ("280", "Blood, immunity"),
    ("290", "Mental"),
    ("320", "Nervous system"),
    ("360", "Eye"),
    ("380", "Ear"),
    ("390", "Circulation"),
    ("460", "Respiration"),
    ("520", "Digestion"),
    ("580", "Genitourinary"),
    ("630", "Pregnancy"),
    ("680", "Skin"),
    ("710", "Musculoskeletal"),
    ("740", "Congenital"),
    ("760", "Perinatal"),
    ("780", "Symptoms"),
    ("800", "Injury"),
    ("E", "External causes"),
    ("V", "Contact factors"),
)
_CHAPTERS = {"ICD10CM": _ICD10, "ICD9CM": _ICD9}
OTHER = "Other"
_COLOURS = {
    "Infections": "#7a9e3b",
    "Neoplasms": "#8e44ad",
    "Blood, immunity": "#c0577a",
    "Endocrine, metabolic": "#e08a1e",
    "Mental": "#6d7fcc",
    "Nervous system": "#3d5a98",
    "Eye": "#4aa3a2",
    "Ear": "#86a6a5",
    "Circulation": "#d1433f",
    "Respiration": "#2f8fd0",
    "Digestion": "#a5762f",
    "Skin": "#d98c73",
    "Musculoskeletal": "#5f8f6a",
    "Genitourinary": "#1f9e89",
    "Pregnancy": "#d96aa7",
    "Perinatal": "#e3a3c4",
    "Congenital": "#9a86b8",
    "Symptoms": "#7b8794",
    "Injury": "#9b5a4a",
    "External causes": "#5c5c5c",
    "Contact factors": "#a9a9a9",
}


def short_code(code: str) -> str:
    """``ICD10CM//E11`` → ``E11``."""
    return code.split("//", 1)[-1]


def chapter(code: str) -> str:
    """Short name of the chapter of an ICD code; ``Other`` for what is none."""
    vocabulary, _, category = code.partition("//")
    table = _CHAPTERS.get(vocabulary, ())
    position = bisect_right([first for first, _ in table], category)
    return table[position - 1][1] if position else OTHER


def colour(code: str) -> str:
    """Colour of a code's chapter, hexadecimal."""
    return _COLOURS.get(chapter(code), "#8a94a6")


def chapter_rank(code: str) -> int:
    """Place of a code's chapter in the classification, so that neighbours share a chapter."""
    names = list(_COLOURS)
    found = chapter(code)
    return names.index(found) if found in names else len(names)


def names(codes: set[str]) -> dict[str, str]:
    """Descriptions of ICD-10-CM codes; a code without one is left out."""
    import simple_icd_10_cm as icd  # seconds to import

    wanted = {code: short_code(code) for code in codes if code.startswith("ICD10CM//")}
    return {code: icd.get_description(short) for code, short in wanted.items() if icd.is_valid_item(short)}


_BINS = {"1": "lowest fifth", "2": "second fifth", "3": "middle fifth", "4": "fourth fifth", "5": "highest fifth"}
_STATIC = {"GENDER": {"F": "Female", "M": "Male"}}
_PREFIXES = {"VISIT": "Visit, ", "VISIT_END": "End of a stay, ", "SITE": "Site ", "RACE": "Race ", "GENDER": "Sex "}


def token_name(token: str, known: dict[str, str]) -> str:
    """What a token of a vocabulary stands for, in words: its value's bin after the code's name.

    Args:
        known: what ``names`` says of the codes.
    """
    code, _, number = token.rpartition("//Q")
    if number not in _BINS or not code:
        return _code_name(token, known)
    return f"{_code_name(code, known)}, {_BINS[number]}"


def bare_code(token: str) -> str:
    """A token's code without the bin of its value."""
    code, _, number = token.rpartition("//Q")
    return code if number in _BINS and code else token


def _code_name(code: str, known: dict[str, str]) -> str:
    system, _, rest = code.partition("//")
    if code in known:
        return known[code]
    if rest in _STATIC.get(system, {}):
        return _STATIC[system][rest]
    if system == "ATC":
        return ATC.get(rest[:3], "")
    if system == "LOINC":
        return LOINC.get(rest, "")
    if system in _PREFIXES:
        return f"{_PREFIXES[system]}{rest.replace('_', ' ')}"
    return chapter(code) if system in _CHAPTERS else ""
