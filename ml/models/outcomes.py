"""Which tokens of a vocabulary stand for an outcome."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml.sequences.form import Form
from ml.sequences.vocabulary import SPECIALS, Vocabulary


def outcome_codes(patterns: Sequence[str], vocabulary: Vocabulary, form: Form) -> list[list[int]]:
    """Per outcome the ids of the tokens that a sequence of this form would show for it, ascending.

    Args:
        patterns: regular expressions over event codes, one per outcome; a token matches by its code, whatever its
            value. A category that matches stands for its rare codes. An outcome without tokens has an empty list.
    """
    table = form.table(vocabulary)
    shown = [i for i in range(len(SPECIALS), vocabulary.size) if table[i] == i]
    found = []
    for pattern in patterns:
        matches = re.compile(pattern).search
        found.append([i for i in shown if matches(_code(vocabulary.tokens[i]))])
    return found


def _code(token: str) -> str:
    code, _, number = token.rpartition("//Q")
    return code if number.isdigit() and code else token
