"""How a stored sequence is shown to a model: which contents, how fine, with or without separators.

The store keeps everything once; each model sees its own form of it, in training as in scoring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ml.common.errors import ConfigError
from ml.sequences.packing import Int32, Int64
from ml.sequences.vocabulary import CLS, MASK, SEP, SPECIALS, UNK, Vocabulary

Content = Literal["diagnosis", "drug", "procedure", "lab", "other"]
CONTENTS: tuple[Content, ...] = ("diagnosis", "drug", "procedure", "lab", "other")
#: What the codes of a vocabulary (the part before ``//``) are; every other one, SOURCE and SITE among them, is "other".
SYSTEMS: dict[str, Content] = {
    "ICD10CM": "diagnosis",
    "ICD10": "diagnosis",
    "ICD9CM": "diagnosis",
    "SNOMED": "diagnosis",
    "ATC": "drug",
    "RxNorm": "drug",
    "RxNorm Extension": "drug",
    "NDC": "drug",
    "CVX": "drug",
    "ICD10PCS": "procedure",
    "ICD9Proc": "procedure",
    "CPT4": "procedure",
    "HCPCS": "procedure",
    "OPCS4": "procedure",
    "LOINC": "lab",
}
SEX = "GENDER"
LEFT_OUT = -1
SMALLEST = 8  # tokens that a form must have room for: [CLS], what is static, an event and its separators


@dataclass(frozen=True)
class Form:
    """Attributes:
    longest: tokens of a sequence; a longer one keeps what is static and its latest events.
    contents: what kinds of event are shown.
    sex: whether the patient's sex is.
    codes: in full, or cut to their category (ICD's three characters, ATC's third level); a category is shown once
        in a visit.
    values: numbers as the token of their bin, or the code alone.
    separators: [SEP] after what is static and after each visit (BEHRT).
    next_visit: one [MASK] at the end, in a visit of its own on the index day (Med-BERT's next-visit head).
    """

    longest: int = 128
    contents: tuple[Content, ...] = CONTENTS
    sex: bool = True
    codes: Literal["full", "truncated"] = "full"
    values: bool = True
    separators: bool = False
    next_visit: bool = False

    def __post_init__(self) -> None:
        if self.longest < SMALLEST:
            raise ConfigError(f"a sequence of {self.longest} tokens is too short", f"set longest to {SMALLEST} or more")
        if unknown := sorted(set(self.contents) - set(CONTENTS)):
            raise ConfigError(f"there are no contents {', '.join(unknown)}", f"choose from: {', '.join(CONTENTS)}")

    def table(self, vocabulary: Vocabulary) -> Int32:
        """``[size]`` the token shown for each token; -1: left out."""
        return np.array(
            [self._shown(number, token, vocabulary) for number, token in enumerate(vocabulary.tokens)], np.int32
        )

    def _shown(self, number: int, token: str, vocabulary: Vocabulary) -> int:
        if number < len(SPECIALS):
            return number if number != UNK or "other" in self.contents else LEFT_OUT
        system = token.partition("//")[0]
        if system == SEX:
            return number if self.sex else LEFT_OUT
        if SYSTEMS.get(system, "other") not in self.contents:
            return LEFT_OUT
        parent = int(vocabulary.parents[number])
        binned = parent > 0 and token.rpartition("//Q")[0] == vocabulary.tokens[parent]
        if binned:
            return number if self.values else parent
        return parent if self.codes == "truncated" and parent > 0 else number


@dataclass(frozen=True)
class Shown:
    """Some sequences one after the other: ``[total]`` each; sequence i owns ``offsets[i]:offsets[i + 1]``."""

    offsets: Int64
    tokens: Int32
    ages: Int32
    days: Int32
    visits: Int32

    @property
    def owner(self) -> Int64:
        """``[total]`` the sequence that a token belongs to."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))

    def take(self, index: npt.NDArray[np.integer], offsets: Int64) -> Shown:
        return Shown(offsets, self.tokens[index], self.ages[index], self.days[index], self.visits[index])


@dataclass(frozen=True, eq=False)
class CompiledForm:
    """A form on a vocabulary. ``table`` is None where every token is shown as it is."""

    form: Form
    table: Int32 | None

    @classmethod
    def of(cls, form: Form, vocabulary: Vocabulary) -> CompiledForm:
        table = form.table(vocabulary)
        return cls(form, None if np.array_equal(table, np.arange(table.size)) else table)

    @property
    def as_stored(self) -> bool:
        """Whether sequences are shown as the store has them, but for the cut."""
        return self.table is None and not self.form.separators and not self.form.next_visit

    def show(self, stored: Shown) -> Shown:
        """Sequences in this form, cut to ``longest``."""
        shown = stored if self.table is None else self._mapped(stored)
        if self.form.separators:
            shown = _separated(shown)
        shown = _cut(shown, self.form.longest - self.form.next_visit)
        return _with_next_visit(shown, stored) if self.form.next_visit else shown

    def _mapped(self, stored: Shown) -> Shown:
        assert self.table is not None
        tokens = self.table[stored.tokens]
        kept = tokens != LEFT_OUT
        if self.form.codes == "truncated":
            kept &= _first_of_visit(stored, tokens)
        index = np.flatnonzero(kept)
        offsets = _offsets(np.bincount(stored.owner[index], minlength=stored.offsets.size - 1))
        shown = stored.take(index, offsets)
        visits = _renumbered(shown)
        return Shown(offsets, tokens[index], shown.ages, shown.days, visits)


def serial_numbers(shown: Shown) -> Int32:
    """``[total]`` place of a token in its visit, from 0; 0 for what is static."""
    place = np.arange(shown.tokens.size)
    begins = _begins_visit(shown)
    first = np.maximum.accumulate(np.where(begins, place, 0))
    return np.where(shown.visits > 0, place - first, 0).astype(np.int32)


def concatenated(stores: Sequence[Shown]) -> Shown:
    """Several lists of sequences as one."""
    lengths = np.concatenate([np.diff(store.offsets) for store in stores])
    names = ("tokens", "ages", "days", "visits")
    return Shown(_offsets(lengths), *(np.concatenate([getattr(store, name) for store in stores]) for name in names))


def spans(starts: Int64, lengths: Int64) -> Int64:
    """``[sum of lengths]`` ``starts[i], …, starts[i] + lengths[i] - 1`` for each i in turn."""
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def _offsets(lengths: Int64) -> Int64:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


def _begins_visit(shown: Shown) -> npt.NDArray[np.bool_]:
    """``[total]`` whether a token is the first of its visit, or of what is static."""
    begins = np.ones(shown.tokens.size, bool)
    begins[1:] = shown.visits[1:] != shown.visits[:-1]
    begins[shown.offsets[:-1][np.diff(shown.offsets) > 0]] = True
    return begins


def _renumbered(shown: Shown) -> Int32:
    """Visit numbers without the gaps that events left out have made."""
    count = np.cumsum(_begins_visit(shown) & (shown.visits > 0), dtype=np.int64)
    before = np.concatenate((np.zeros(1, np.int64), count))[shown.offsets[:-1]]
    return np.where(shown.visits > 0, count - before[shown.owner], 0).astype(np.int32)


def _first_of_visit(stored: Shown, tokens: Int32) -> npt.NDArray[np.bool_]:
    """``[total]`` whether a token is the first of its kind in its visit."""
    visit = np.cumsum(_begins_visit(stored), dtype=np.int64)
    first = np.zeros(tokens.size, bool)
    first[np.unique(visit << 16 | tokens + 1, return_index=True)[1]] = True
    return first


def _separated(shown: Shown) -> Shown:
    """A [SEP] after each visit and after what is static: same visit, age and day as the token before it."""
    begins = _begins_visit(shown)
    ends = np.append(begins[1:], True) if begins.size else begins
    index = np.repeat(np.arange(begins.size), 1 + ends)
    added = np.flatnonzero(ends) + np.arange(1, int(ends.sum()) + 1)
    lengths = np.bincount(shown.owner, weights=1 + ends, minlength=shown.offsets.size - 1).astype(np.int64)
    made = shown.take(index, _offsets(lengths))
    tokens = made.tokens.copy()
    tokens[added] = SEP
    return Shown(made.offsets, tokens, made.ages, made.days, made.visits)


def _cut(shown: Shown, longest: int) -> Shown:
    """Longer sequences keep what is static and the latest events, which never begin with a [SEP]."""
    lengths = np.diff(shown.offsets)
    if lengths.max(initial=0) <= longest:
        return shown
    owner = shown.owner
    static = np.bincount(owner[shown.visits == 0], minlength=lengths.size)
    static = np.where(lengths > longest, np.minimum(static, longest // 2), static)
    place = np.arange(owner.size) - shown.offsets[:-1][owner]
    first = np.where(lengths > longest, lengths - (longest - static), static)  # of the events that stay
    kept = (place < static[owner]) | (place >= first[owner])
    kept &= ~((shown.tokens == SEP) & (place == first[owner]) & (lengths > longest)[owner])
    index = np.flatnonzero(kept)
    return shown.take(index, _offsets(np.bincount(owner[index], minlength=lengths.size)))


def _with_next_visit(shown: Shown, stored: Shown) -> Shown:
    """One [MASK] at the end of each sequence: the next visit, on the index day, at the age of that day."""
    ends = shown.offsets[1:] + np.arange(shown.offsets.size - 1)
    index = np.insert(np.arange(shown.tokens.size), shown.offsets[1:], shown.offsets[1:] - 1)
    made = shown.take(index, shown.offsets + np.arange(shown.offsets.size))
    tokens, ages, days, visits = (np.array(a) for a in (made.tokens, made.ages, made.days, made.visits))
    tokens[ends], days[ends] = MASK, 0
    ages[ends] = stored.ages[stored.offsets[:-1]]
    visits[ends] += 1
    return Shown(made.offsets, tokens, ages, days, visits)


assert CLS < SEP  # the specials are shown as they are
