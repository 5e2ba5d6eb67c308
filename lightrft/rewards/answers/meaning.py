"""What a text means as an answer: a `Quantity`, a moment, or nothing (None).

Texts are read as `typography.plain` leaves them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from lightrft.rewards.answers.last_number import DIGITS, last_number_in
from lightrft.rewards.answers.latex import FUNCTION, formula
from lightrft.rewards.answers.moments import moment
from lightrft.rewards.answers.numbers import NUMBER
from lightrft.rewards.answers.prose import last_formula, peeled, statement
from lightrft.rewards.answers.quantities import Quantity, quantity, without_unit

SOME_WORDS = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*")  # and nothing else
SUBSCRIPT = re.compile(r"[0-9]\)? ?_")  # the library would drop the base
PERCENTAGE = re.compile(r"(?:%|percent) ?\}?\Z")


@lru_cache(maxsize=256)  # a reference is read again for each response to it
def meaning(text: str) -> Any:
    """Of a text that is an answer and nothing else; a sentence is read for its answer. `text` is `peeled`."""
    simple = moment(text) or quantity(text)
    if simple is not None:  # it needs no library
        return simple
    words = len(_words(text))
    if words > 3 or (words == 3 and not SOME_WORDS.fullmatch(text)) or statement(text) is not None:
        return meaning_of_prose(text)
    if SUBSCRIPT.search(text):
        return quantity(text.rpartition("=")[2])
    if SOME_WORDS.fullmatch(text):
        text = rf"\text{{{text}}}"
    percentage = PERCENTAGE.search(text)
    text, unit = without_unit(text)
    value = formula(text)
    return Quantity(value, "%" if percentage else unit) if value else None


WITHOUT_SENTENCE = re.compile(r"[A-Za-z0-9+\-*/^=<>()\[\]{}|.,!%\\_ ]+")


def meaning_of_prose(text: str) -> Any:
    """Of what a text calls its answer; else of all of it, if it is a formula; else of its last formula or number."""
    stated = statement(text)
    if stated is not None:
        return _meaning_of_few_words(peeled(stated))
    bare = peeled(text)
    simple = moment(bare) or quantity(bare)
    if simple is not None:
        return simple
    words = len(_words(bare))
    if WITHOUT_SENTENCE.fullmatch(bare) and (not words or (words <= 3 and SOME_WORDS.fullmatch(bare))):
        return meaning(bare)
    last, rest = last_formula(text)
    if last is not None and not any(digit in rest for digit in DIGITS):
        return _meaning_of_few_words(peeled(last))
    return _last_number(text)


def _meaning_of_few_words(text: str) -> Any:
    """Of more than two words the only number counts: 5 apples and 3 pears have none that is the answer."""
    if len(_words(text)) <= 2:
        return meaning(text)
    return _last_number(text) if len(NUMBER.findall(text)) == 1 else None


def _last_number(text: str) -> Any:
    number = last_number_in(text)
    if number is None:
        return None
    after = text[max(map(text.rfind, DIGITS)) + 1 :]
    if re.match(r"\s?\\?%", after):
        return meaning(rf"{number.value.numerator if number.value.denominator == 1 else float(number.value)}\%")
    return Quantity(number)


WORD = re.compile(r"[A-Za-z]{2,}")
NO_WORD = re.compile(  # though it has letters
    r"\\(?:text|textbf|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+"
    rf"|{FUNCTION}|(?<![A-Za-z])(?:pi|sqrt)(?![A-Za-z])"
)


def _words(text: str) -> list[str]:
    return WORD.findall(NO_WORD.sub(" ", text))
