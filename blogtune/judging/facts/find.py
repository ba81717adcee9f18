"""Which of a reference's values does an answer say, and does it say another of their kind?

Right is an answer that says all of them and nothing that contradicts: no other date, time or name
in the place of one, no other number with its unit, none of them negated where the reference does
not negate it, no Yes for a No. Precision, recall and F1 are those of SQuAD (Rajpurkar et al. 2016)
with values for words: the found ones among the said, and among the expected.
"""

import re
from collections.abc import Iterator, Sequence

from blogtune.common.records import Facts
from blogtune.judging.facts.tokens import Token, tokens
from blogtune.judging.facts.values import Value, Vocabulary, is_name, named_values, values_by_rule

NEGATIONS = {
    *("not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot"),
    *("nicht", "kein", "keine", "keinen", "keinem", "keiner", "nie", "niemand", "nichts", "ohne"),
    *("pas", "jamais", "rien", "aucun", "aucune", "sans", "nunca", "ninguno", "ninguna"),
    *("不", "没", "無", "未"),
}
YES = {"yes", "ja", "oui", "sí", "sì", "sim"}
NO = {"no", "nein", "non", "não", "nee"}
YEARS = range(1000, 2100)


def find_facts(
    question: str, reference: str, answer: str, named: Sequence[str], vocabulary: Vocabulary
) -> Facts | None:
    """Look for the reference's values in the answer; None where the reference has none.

    `named` are the values that the data name; without any they are found by rule.
    """
    values = named_values(named) or values_by_rule(question, reference, vocabulary)
    if not values:
        return None
    told, said = tokens(reference), tokens(answer)
    missing = [value.text for value in values if not _says(said, value, told)]
    known = {token.key for token in (*told, *tokens(question))}
    contrary = [
        *dict.fromkeys(_contrary(values, told, said, known)),
        *_turned(told, said),
    ]
    found = len(values) - len(missing)
    precision = found / (found + len(contrary)) if found else 0.0
    recall = found / len(values)
    return Facts(
        right=not missing and not contrary,
        precision=round(precision, 6),
        recall=round(recall, 6),
        f1=round(2 * precision * recall / (precision + recall), 6) if found else 0.0,
        expected=[value.text for value in values],
        missing=missing,
        contrary=contrary,
    )


def _says(said: Sequence[Token], value: Value, told: Sequence[Token]) -> bool:
    """Whether the answer says the value, negated only where the reference negates it too."""
    here, there = [*_places(said, value)], [*_places(told, value)]
    if not here or not there:
        return bool(here)
    size = len(value.tokens)
    negated = _is_negated(told, there[0], size)
    return any(_is_negated(said, place, size) == negated for place in here)


def _places(said: Sequence[Token], value: Value) -> Iterator[int]:
    size = len(value.tokens)
    for at in range(len(said) - size + 1):
        if all(map(_same, value.tokens, said[at : at + size])):
            yield at


def _same(wanted: Token, said: Token) -> bool:
    """A date without a year is found in one with a year, and not the other way round."""
    if wanted.kind == said.kind == "date" and wanted.key.startswith("-"):
        return said.key.endswith(wanted.key)
    return wanted.key == said.key


def _is_negated(said: Sequence[Token], at: int, size: int) -> bool:
    """Whether the clause around the value has a negation outside it."""
    around = [*said[:at], *said[at + size :]]
    return any(_negates(token) for token in around if token.clause == said[at].clause)


def _negates(token: Token) -> bool:
    return token.key in NEGATIONS or token.key.endswith("n't")


def _contrary(
    values: Sequence[Value],
    told: Sequence[Token],
    said: Sequence[Token],
    known: set[str],
) -> Iterator[str]:
    """What the answer says of the values' kinds that neither reference nor question says."""
    wanted = {kind for value in values for kind, _ in _kinds_of(value, told)}
    for kind, key in _kinds(said):
        # A date's last six characters leave its year out.
        if kind in wanted and key not in known and (kind != "date" or key[-6:] not in known):
            yield key


def _kinds_of(value: Value, told: Sequence[Token]) -> Iterator[tuple[str, str]]:
    """The kinds of a value as it stands in the reference, where a number has its unit."""
    at = next(_places(told, value), None)
    if at is None:
        yield from _kinds(value.tokens)
        return
    here = {(token.kind, token.key) for token in value.tokens}
    for place in range(at, at + len(value.tokens)):
        if (told[place].kind, told[place].key) in here:
            yield from _kind(told, place)


def _kinds(said: Sequence[Token]) -> Iterator[tuple[str, str]]:
    for place in range(len(said)):
        yield from _kind(said, place)


def _kind(said: Sequence[Token], at: int) -> Iterator[tuple[str, str]]:
    """The kind of what stands there and its key: two of a kind with different keys contradict."""
    token = said[at]
    if token.kind in ("date", "time"):
        yield token.kind, token.key
    elif is_name(token):
        yield "name", token.key
    elif token.kind == "number":
        if re.fullmatch(r"\d{4}", token.key) and int(token.key) in YEARS:
            yield "year", token.key
        following = said[at + 1] if at + 1 < len(said) else None
        if following and following.kind == "word" and following.clause == token.clause:
            yield f"number of {following.key}", token.key


def turned(reference: str, answer: str) -> bool:
    """Whether one begins with Yes and the other with No."""
    return bool([*_turned(tokens(reference), tokens(answer))])


def kind_of(value: str) -> str:
    """What a value can be exchanged for: another date, another name, another number of beds."""
    read = tokens(value)
    kinds = sorted(kind for kind, _ in _kinds(read))
    names = all(token.capital for token in read if token.kind == "word")
    return ", ".join(kinds) or ("name" if names else f"{len(read)} words")


def _turned(told: Sequence[Token], said: Sequence[Token]) -> Iterator[str]:
    """The answer's Yes where the reference begins with No, or the other way round."""
    first, second = (_yes_or_no(each) for each in (told, said))
    if first is not None and second is not None and first != second:
        yield said[0].key


def _yes_or_no(said: Sequence[Token]) -> bool | None:
    """What the text begins with, if a mark follows it."""
    if not said or (len(said) > 1 and said[1].clause == said[0].clause):
        return None
    return True if said[0].key in YES else False if said[0].key in NO else None
