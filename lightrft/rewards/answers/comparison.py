"""Whether two answers mean the same: numbers are compared exactly, formulas by the library."""

from __future__ import annotations

from typing import Any

from lightrft.rewards.answers.numbers import Number
from lightrft.rewards.answers.quantities import Quantity

PLACES = 6  # so many correct decimals stand for a number that has no end


def same(expected: Any, answer: Any) -> bool:
    """Of two values of `meaning`; what means nothing equals nothing."""
    from math_verify import verify

    if expected is None or answer is None:
        return False
    if not (isinstance(expected, Quantity) and isinstance(answer, Quantity)):
        return expected == answer
    if not _same_unit(expected.unit, answer.unit):
        return False
    if isinstance(expected.amount, Number) and isinstance(answer.amount, Number):
        return _same_number(expected.amount, answer.amount)
    first, second = _for_library(expected.amount), _for_library(answer.amount)
    return bool(first and second) and verify(first, second, timeout_seconds=None, raise_on_error=True)


def _same_unit(expected: str, answer: str) -> bool:
    """Only units in our tables can differ: 5 is 5 km, 5 apples are 5 red apples, but 5 km are not 5 cm, nor 5 %."""
    return not expected or not answer or expected == answer


def _same_number(expected: Number, answer: Number) -> bool:
    """Equal, or one has no end in decimals (1/3) and the other is its rounding to `PLACES` places or more."""
    if expected == answer:
        return True
    endless, decimal = expected.value, answer.value
    if _ends(endless.denominator):
        endless, decimal = decimal, endless
    if expected.base != answer.base or _ends(endless.denominator) or not _ends(decimal.denominator):
        return False
    places = next(n for n in range(31) if (decimal * 10**n).denominator == 1)
    return places >= PLACES and round(endless, places) == decimal


def _ends(denominator: int) -> bool:
    """Whether a fraction with it has at most 30 decimals."""
    return 10**30 % denominator == 0


def _for_library(amount: Number | list[Any]) -> list[Any]:
    """As sympy's; empty for a number of another base, which equals no formula."""
    import sympy

    if isinstance(amount, list):
        return amount
    return [sympy.Rational(amount.value.numerator, amount.value.denominator)] if amount.base == 10 else []
