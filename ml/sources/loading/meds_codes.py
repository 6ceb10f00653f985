"""Codes of MEDS datasets, written as Vigil writes them.

MEDS leaves the form of codes to each dataset. What is recognised becomes ``VOCABULARY//code`` with the vocabulary's
name as OMOP has it and, for diagnoses and ICD-9 procedures, the dot; a code without a vocabulary becomes
``SOURCE//code``; everything else stays as it is. A code in Vigil's own form comes out unchanged.
"""

from __future__ import annotations

import re

BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
VOCABULARIES = {
    **dict.fromkeys(("icd9cm", "icd9"), "ICD9CM"),
    **dict.fromkeys(("icd9proc", "icd9pcs"), "ICD9Proc"),
    "icd10cm": "ICD10CM",
    "icd10pcs": "ICD10PCS",
    **dict.fromkeys(("snomed", "snomedct"), "SNOMED"),
    **dict.fromkeys(("cpt", "cpt4"), "CPT4"),
    "loinc": "LOINC",
    "rxnorm": "RxNorm",
    "atc": "ATC",
    "ndc": "NDC",
    "hcpcs": "HCPCS",
    "cvx": "CVX",
    **dict.fromkeys(("gender", "sex"), "GENDER"),
    "race": "RACE",
    "ethnicity": "ETHNICITY",
}
ICD = {  # as MIMIC-IV's MEDS release has them: DIAGNOSIS//ICD//9//4280
    ("DIAGNOSIS", "9"): "ICD9CM",
    ("DIAGNOSIS", "10"): "ICD10CM",
    ("PROCEDURE", "9"): "ICD9Proc",
    ("PROCEDURE", "10"): "ICD10PCS",
}
MIMIC = re.compile(r"(DIAGNOSIS|PROCEDURE)//ICD//(9|10)//(.+)")
PREFIXED = re.compile(r"([^/:]+)(?://|/|:)\s*(\S.*)", re.DOTALL)
SEXES = {"m": "M", "male": "M", "8507": "M", "f": "F", "female": "F", "8532": "F"}


def normalise(code: str) -> str:
    """One code in Vigil's form."""
    plain = code.strip()
    for own in (BIRTH, DEATH):
        if plain == own or plain.startswith(f"{own}//"):
            return own
    if mimic := MIMIC.fullmatch(plain):
        return _written(ICD[mimic[1], mimic[2]], mimic[3])
    found = PREFIXED.fullmatch(plain)
    known = VOCABULARIES.get(re.sub(r"[\s_.-]", "", found[1]).lower()) if found else None
    if found and known:
        return _written(known, found[2])
    return plain if "//" in plain and not plain.startswith("/") else f"SOURCE//{plain.lstrip('/')}"


def _written(vocabulary: str, code: str) -> str:
    if vocabulary == "GENDER":
        code = SEXES.get(code.strip().lower(), code)
    elif vocabulary in ("ICD9CM", "ICD10CM", "ICD9Proc", "ICD10PCS"):
        code = _dotted(vocabulary, code.strip().replace(".", "").upper())
    return f"{vocabulary}//{code}"


def _dotted(vocabulary: str, plain: str) -> str:
    stem = {"ICD9CM": 4 if plain.startswith("E") else 3, "ICD10CM": 3, "ICD9Proc": 2}.get(vocabulary, len(plain))
    return f"{plain[:stem]}.{plain[stem:]}" if len(plain) > stem else plain
