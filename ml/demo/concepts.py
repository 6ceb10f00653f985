"""Codes of the demo hospital and the concept rows that stand for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ml.demo.process import FloatArray, IntArray, load_process

FIRST_CONCEPT = 2_000_000_000  # OMOP leaves ids from two billion on to the site


@dataclass(frozen=True)
class Codes:
    """All codes, sorted by vocabulary and code; a code's number is its position.

    Attributes:
        vocabularies, codes, names, domains: one entry per code.
        categories: (D, 2, K) numbers of the ICD-10-CM codes of a disease at a site.
        shares: (D, 2, K) their cumulative shares, padded with 1.
        drugs, labs: numbers of the process's drugs and labs, in its order.
    """

    vocabularies: tuple[str, ...]
    codes: NDArray[np.str_]
    names: tuple[str, ...]
    domains: tuple[str, ...]
    categories: IntArray
    shares: FloatArray
    drugs: IntArray
    labs: IntArray

    def concept_ids(self) -> IntArray:
        """Concept id per code."""
        return FIRST_CONCEPT + np.arange(len(self.codes))


@lru_cache(maxsize=1)
def load_codes() -> Codes:
    """The codes of the process, named by ICD-10-CM's own descriptions."""
    import simple_icd_10_cm as icd

    process = load_process()
    diagnoses = {code for d in process.diseases for site in d.codes for code, _ in site}
    named = {("ICD10CM", code): (icd.get_description(code), "Condition") for code in diagnoses}
    named |= {("ATC", drug.atc): (drug.name, "Drug") for drug in process.drugs}
    named |= {("LOINC", lab.loinc): (lab.name, "Measurement") for lab in process.labs}
    keys = sorted(named)
    number = {key: i for i, key in enumerate(keys)}
    most = max(len(site) for d in process.diseases for site in d.codes)
    categories = np.zeros((len(process.diseases), 2, most), dtype=np.int64)
    shares = np.ones((len(process.diseases), 2, most), dtype=np.float32)
    for i, disease in enumerate(process.diseases):
        for s, site in enumerate(disease.codes):
            numbers = [number["ICD10CM", code] for code, _ in site]
            categories[i, s] = numbers + numbers[-1:] * (most - len(numbers))
            shares[i, s, : len(site) - 1] = np.cumsum([share for _, share in site])[:-1]
    return Codes(
        tuple(vocabulary for vocabulary, _ in keys),
        np.array([code for _, code in keys]),
        tuple(named[key][0] for key in keys),
        tuple(named[key][1] for key in keys),
        categories,
        shares,
        np.array([number["ATC", drug.atc] for drug in process.drugs]),
        np.array([number["LOINC", lab.loinc] for lab in process.labs]),
    )
