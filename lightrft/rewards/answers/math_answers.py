r"""Whether an answer equals the reference as mathematics: numbers exactly, the rest through the math-verify library.

`judge` works in the calling process and may take for ever (`9**9**9**9`); the rules ask it in `sandbox.py`.
"""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from typing import Any

from lightrft.rewards.answers.commands import FUNCTIONS
from lightrft.rewards.answers.extraction import in_object, last_box
from lightrft.rewards.answers.last_number import DIGITS, last_number_in
from lightrft.rewards.answers.numbers import ENDLESS, NUMBER, Number, number
from lightrft.rewards.answers.options import option, stated_letter
from lightrft.rewards.answers.prose import LONGEST, last_formula, peeled, statement
from lightrft.rewards.answers.quantities import Quantity, moment, quantity, without_unit
from lightrft.rewards.answers.typography import plain

WORDS = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*")
# Words are found outside of \text{...} and of commands such as \sqrt. Three of them make a sentence.
FUNCTION = rf"(?<![\\A-Za-z])({FUNCTIONS})(?![A-Za-z])"
NOT_A_WORD = re.compile(
    r"\\(?:text|textbf|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+"
    rf"|{FUNCTION}|(?<![A-Za-z])(?:pi|sqrt)(?![A-Za-z])"
)
WORD = re.compile(r"[A-Za-z]{2,}")
PLAIN = re.compile(r"[A-Za-z0-9+\-*/^=<>()\[\]{}|.,!%\\_ ]+")
SUBSCRIPT = re.compile(r"[0-9]\)? ?_")  # the library would drop the base
PERCENTAGE = re.compile(r"(?:%|percent) ?\}?\Z")
LONGEST_FORMULA = 1000  # characters; the library takes seconds for what is longer
PLACES = 6  # so many correct decimals stand for a number that has no end

# What the library misreads: it takes 10 000 for 10 * 0, 2**3 for nothing, pi for p * i and 1 1/2 for 1.
THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:\\[,! ]|[ ~]|\{,\})\d{3})+(?!\d)")
REPAIRS = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(FUNCTION), r"\\\1"),
    (re.compile(r"(?<![\d/.])(\d+) (\d+)/(\d+)(?![\d/])"), r"\1\\frac{\2}{\3}"),
    (re.compile(r"\^\{\\circ\}"), r"^\\circ "),
    (re.compile(r"\\?\$"), ""),
    (re.compile(r"\\text ?\{ ?percent ?\}"), r"\\%"),
    (re.compile(r"\\varnothing"), r"\\emptyset"),
    (re.compile(r"\\[dt]?binom ?([0-9]) ?([0-9])"), r"\\binom{\1}{\2}"),
    (re.compile(r"\A([0-9]+|[A-Za-z]) ?\\choose ?([0-9]+|(?<= )[A-Za-z])\Z"), r"\\binom{\1}{\2}"),
)


def load() -> None:
    import math_verify  # noqa: F401  # now, outside of the first answer's time

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we took its limit away


def judge(answer: str, reference: str, boxed_only: bool) -> float:
    r"""1.0 if the answer of a response equals the reference, else 0.0.

    What stands in the last `\boxed{}` counts. Without a box the whole text is read, unless `boxed_only`: what follows
    "answer is", else the last expression between dollars or the last plain number, whichever comes last. Of a JSON
    object its answer is read. A text that holds no mathematics is wrong. Raises `ValueError` for a reference that holds
    none, and whatever the comparison raises.
    """
    gold = _lone(reference)
    if option(gold) is None and _read(gold) is None:
        raise ValueError(f"the reference {reference[:80]!r} {check(reference)}")
    box = last_box(answer)
    if (box is None and boxed_only) or len(box or "") > LONGEST:
        return 0.0
    shown = answer[-LONGEST:] if box is None else box
    inner = in_object(shown)
    return float(_equal(gold, plain(inner or shown), in_prose=box is None and not inner))


def check(reference: str) -> str | None:
    """Why nothing can be compared with this reference. One that cannot be compared in time is found here too."""
    text = _lone(reference)
    read = _read(text)
    if text.lower() == "nan" or (option(text) is None and read is None):  # nan is what a table writes for nothing
        return "cannot be read as mathematics; LaTeX or a number works"
    with suppress(Exception):  # only how long it takes is of interest
        _same(read, Quantity(Number(Fraction(0))))
    return None


def _lone(reference: str) -> str:
    box = last_box(reference)
    return peeled(plain(reference if box is None else box))


def _equal(gold: str, text: str, in_prose: bool) -> bool:
    """First the letters of a multiple choice, then what they stand for."""
    lone = peeled(text)
    asked, given = option(gold), option(lone)
    letter = given.letter if given else stated_letter(text) if in_prose else None
    if asked and letter:
        contents = [asked.content, given.content if given else ""]
        return asked.letter == letter and (not all(contents) or _same(*map(_read, contents)))
    if asked and asked.content:
        gold = asked.content
    if given and given.content:
        lone, in_prose = given.content, False
    return _same(_read(gold), _read(lone) if not in_prose else _read_prose(lone))


def _same(gold: Any, answer: Any) -> bool:
    from math_verify import verify

    if gold is None or answer is None:
        return False
    if not (isinstance(gold, Quantity) and isinstance(answer, Quantity)):
        return gold == answer
    if not _same_unit(gold.unit, answer.unit):
        return False
    if isinstance(gold.amount, Number) and isinstance(answer.amount, Number):
        return _same_number(gold.amount, answer.amount)
    first, second = _for_library(gold.amount), _for_library(answer.amount)
    return bool(first and second) and verify(first, second, timeout_seconds=None, raise_on_error=True)


def _same_unit(gold: str, answer: str) -> bool:
    """Only units that are known can differ: 5 is 5 km, 5 apples are 5 red apples, but 5 km are not 5 cm, nor 5 %."""
    return not gold or not answer or gold == answer


def _same_number(gold: Number, answer: Number) -> bool:
    if gold == answer:
        return True
    (endless, decimal), ends = (gold.value, answer.value), 10**30
    if ends % endless.denominator == 0:
        endless, decimal = decimal, endless
    if gold.base != answer.base or ends % endless.denominator == 0 or ends % decimal.denominator:
        return False
    places = next(n for n in range(31) if (decimal * 10**n).denominator == 1)
    return places >= PLACES and round(endless, places) == decimal


def _for_library(amount: Number | list[Any]) -> list[Any]:
    import sympy

    if isinstance(amount, list):
        return amount
    return [sympy.Rational(amount.value.numerator, amount.value.denominator)] if amount.base == 10 else []


@lru_cache(maxsize=256)  # a reference is read again for each response to it
def _read(text: str) -> Any:
    """What a text says that is an answer and nothing else; a sentence is read for its answer. None for nothing."""
    alone = _alone(text)
    if alone is not None:
        return alone
    words = len(_words(text))
    if words > 3 or (words == 3 and not WORDS.fullmatch(text)) or statement(text) is not None:
        return _read_prose(text)
    if SUBSCRIPT.search(text):
        return quantity(text.rpartition("=")[2])
    if WORDS.fullmatch(text):
        text = rf"\text{{{text}}}"
    percentage = PERCENTAGE.search(text)
    text, unit = without_unit(text)
    text = ENDLESS.sub(_as_fraction, text)
    for pattern, replacement in REPAIRS:
        text = pattern.sub(replacement, text)
    parsed = _parse(text)
    return Quantity(parsed, "%" if percentage else unit) if parsed else None


def _alone(text: str) -> Any:
    """A number, with a unit at most, a time or a date, where the text is nothing else: it needs no library."""
    return moment(text) or quantity(text)


def _read_prose(text: str) -> Any:
    """What a text calls its answer; else the text itself if it is a formula; else its last formula or number."""
    said = statement(text)
    if said is not None:
        return _read_short(peeled(said))
    lone = peeled(text)
    alone = _alone(lone)
    if alone is not None:
        return alone
    words = len(_words(lone))
    if PLAIN.fullmatch(lone) and (not words or (words <= 3 and WORDS.fullmatch(lone))):
        return _read(lone)
    formula, rest = last_formula(text)
    if formula is not None and not any(digit in rest for digit in DIGITS):
        return _read_short(peeled(formula))
    return _number_in(text)


def _read_short(text: str) -> Any:
    """Of more than two words the only number counts: 5 apples and 3 pears have none that is the answer."""
    if len(_words(text)) <= 2:
        return _read(text)
    return _number_in(text) if len(NUMBER.findall(text)) == 1 else None


def _number_in(text: str) -> Any:
    found = last_number_in(text)
    if found is None:
        return None
    after = text[max(map(text.rfind, DIGITS)) + 1 :]
    if re.match(r"\s?\\?%", after):
        return _read(rf"{found.value.numerator if found.value.denominator == 1 else float(found.value)}\%")
    return Quantity(found)


def _as_fraction(found: re.Match[str]) -> str:
    value = number(found.group())
    assert value is not None, "what matches is read"
    return rf"\frac{{{value.value.numerator}}}{{{value.value.denominator}}}"


def _words(text: str) -> list[str]:
    return WORD.findall(NOT_A_WORD.sub(" ", text))


def _parse(text: str) -> list[Any]:
    """What the library makes of LaTeX, all of it or nothing."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # It would drop units that change a number: a dozen, ab.
    normal = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    text = THOUSANDS.sub(lambda found: re.sub(r"\D", "", found.group()), text)
    if len(text) > LONGEST_FORMULA:
        return []
    kinds = [LatexExtractionConfig(normalization_config=normal)]
    return parse(f"${text}$", kinds, fallback_mode="no_fallback", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
