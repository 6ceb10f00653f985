"""A form in plain Python, token by token: slow, and what the fast one must equal."""

from __future__ import annotations

from dataclasses import dataclass

from ml.sequences.form import CONTENTS, SYSTEMS, Form
from ml.sequences.vocabulary import MASK, SEP, UNK, Vocabulary, category


@dataclass(frozen=True)
class Token:
    token: int
    age: int
    day: int
    visit: int


def plain_show(sequence: list[Token], form: Form, vocabulary: Vocabulary) -> list[Token]:
    """A stored sequence in a form."""
    visits = sorted({token.visit for token in sequence if token.visit})
    kept: list[list[Token]] = [shown(sequence, 0, form, vocabulary)]
    for visit in visits:
        if tokens := shown(sequence, visit, form, vocabulary):
            kept.append([Token(t.token, t.age, t.day, len(kept)) for t in tokens])
    if form.separators:
        kept = [[*group, Token(SEP, group[-1].age, group[-1].day, group[-1].visit)] for group in kept]
    static, events = kept[0], [token for group in kept[1:] for token in group]
    room = form.longest - form.next_visit
    if len(static) + len(events) > room:
        static = static[: room // 2]
        events = (static + events)[-(room - len(static)) :] if len(events) > room - len(static) else events
        events = events[1:] if events and events[0].token == SEP else events
    last = (static + events)[-1]
    mask = [Token(MASK, sequence[0].age, 0, last.visit + 1)] if form.next_visit else []
    return static + events + mask


def shown(sequence: list[Token], visit: int, form: Form, vocabulary: Vocabulary) -> list[Token]:
    found: list[Token] = []
    for token in sequence:
        number = plain_token(token.token, form, vocabulary)
        repeated = form.codes == "truncated" and number in [other.token for other in found]
        if token.visit == visit and number is not None and not repeated:
            found.append(Token(number, token.age, token.day, token.visit))
    return found


def plain_token(number: int, form: Form, vocabulary: Vocabulary) -> int | None:
    name = vocabulary.tokens[number]
    if name.startswith("["):
        return None if number == UNK and "other" not in form.contents else number
    if name.startswith("GENDER//"):
        return number if form.sex else None
    if SYSTEMS.get(name.split("//")[0], CONTENTS[-1]) not in form.contents:
        return None
    code, _, value = name.rpartition("//Q")
    if code in vocabulary.bins and value.isdigit():
        return number if form.values else vocabulary.ids[code]
    if form.codes == "truncated" and category(name) in vocabulary.ids:
        return vocabulary.ids[category(name)]
    return number
