r"""Formulas, through the math-verify library, after what it misreads has been repaired.

It takes 10 000 for 10 * 0, 2**3 for nothing, pi for p * i and 1 1/2 for 1.
"""

from __future__ import annotations

import re
from typing import Any

from lightrft.rewards.answers.commands import FUNCTIONS
from lightrft.rewards.answers.numbers import ENDLESS, number

MOST_CHARACTERS = 1000  # the library takes seconds for what is longer
FUNCTION = rf"(?<![\\A-Za-z])({FUNCTIONS})(?![A-Za-z])"
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
    (THOUSANDS, lambda match: re.sub(r"\D", "", match.group())),
)


def formula(text: str) -> list[Any]:
    """What the library makes of all of the text; empty for nothing."""
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # It would drop units that change a number: a dozen, ab.
    normal = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    text = ENDLESS.sub(_as_fraction, text)
    for pattern, replacement in REPAIRS:
        text = pattern.sub(replacement, text)
    if len(text) > MOST_CHARACTERS:
        return []
    kinds = [LatexExtractionConfig(normalization_config=normal)]
    return parse(f"${text}$", kinds, fallback_mode="no_fallback", parsing_timeout=None)  # pyright: ignore[reportArgumentType]


def _as_fraction(match: re.Match[str]) -> str:
    value = number(match.group())
    assert value is not None, "what matches is a number"
    return rf"\frac{{{value.value.numerator}}}{{{value.value.denominator}}}"
