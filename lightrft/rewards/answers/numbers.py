r"""Numbers as people write them, read exactly: 1,234.50, 1\,000, 1\frac{1}{2}, 0.\overline{3}, 2 \times 10^3, 101_2.

A text is read as `typography.plain` leaves it. What can honestly be read in two ways is no number here, such as 3,5 (a
decimal or two numbers). Each way to write a number is one function below, under the pattern of what it reads. Where
two patterns fit, the upper function counts. Every pattern takes time in proportion to the text: it begins with what it
needs, so that no text is read again and again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

MOST_CHARACTERS = 1000  # nobody reads a longer number, and exact arithmetic with it takes long
LARGEST_POWER = 999

# Parts of the patterns
SEPARATORS = (",", r"\{,\}", r"\\[,;:! ]", "'", "~", " ")  # of thousands; the same all through one number
GROUPED = "|".join(rf"[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{3}})+(?![0-9])" for separator in SEPARATORS)
DECIMAL = rf"(?:(?:{GROUPED}|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
SPACE = r"(?: |\\[,;:! ]|~)?"


class Number(NamedTuple):
    """101_2 is not the answer 5, nor is 5 the answer 101_2: a base other than ten is part of the answer."""

    value: Fraction
    base: int = 10


Reader = Callable[[str], Number]
READERS: list[tuple[re.Pattern[str], Reader]] = []


def number(text: str) -> Number | None:
    """What a text is that is a number without a sign and nothing else; None for all others."""
    if len(text) > MOST_CHARACTERS:
        return None
    for pattern, read in READERS:
        if pattern.fullmatch(text):
            try:
                return read(text)
            except (ValueError, KeyError, ZeroDivisionError):  # 109_2, 5_{n}, 1/0, a power that is too large
                return None
    return None


def reads(pattern: str) -> Callable[[Reader], Reader]:
    """The function below it reads what fits the pattern."""

    def enter(function: Reader) -> Reader:
        READERS.append((re.compile(pattern), function))
        return function

    return enter


BASE = rf"{SPACE}_ ?(?:\{{(?:[^{{}}]|\{{[^{{}}]{{0,20}}\}}){{1,40}}\}}|[0-9]{{1,2}}(?![0-9]))"
BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}


@reads(rf"(?:\([0-9A-F]{{1,80}}\)|[0-9][0-9A-Fa-f]{{0,80}}){BASE}")
def _in_base(text: str) -> Number:
    r"""101_2, (1F)_{16}, 101_{\text{two}}"""
    digits, base = text.split("_")
    name = re.sub(r"\\(?:text|mathrm)|base|[^0-9a-z]", "", base)
    radix = int(name) if name.isdigit() else BASE_WORDS[name]
    return Number(Fraction(int(re.sub("[^0-9A-Fa-f]", "", digits), radix)), radix)


PREFIXES = {"0b": 2, "0o": 8, "0x": 16}


@reads(r"0[bB][01]+(?![0-9A-Za-z])|0[oO][0-7]+(?![0-9A-Za-z])|0[xX][0-9A-Fa-f]+(?![0-9A-Za-z])")
def _with_prefix(text: str) -> Number:
    """0x1F"""
    radix = PREFIXES[text[:2].lower()]
    return Number(Fraction(int(text[2:], radix)), radix)


@reads(r"[0-9]+(?: |\\[ ,;]|~| ?\+ ?| and )[0-9]+ ?/ ?[0-9]+(?! ?/)")
def _mixed(text: str) -> Number:
    """1 1/2, 1 and 1/2"""
    whole, top, low = re.findall(r"[0-9]+", text)
    return Number(int(whole) + Fraction(int(top), int(low)))


IN_BRACES = rf" ?-? ?{DECIMAL} ?"
FRAC = rf"\\[dtc]?frac ?(?:\{{{IN_BRACES}\}}|[0-9]) ?(?:\{{{IN_BRACES}\}}|[0-9])"


@reads(rf"(?:[0-9]+{SPACE})?{FRAC}")
def _frac(text: str) -> Number:
    r"""\frac{1}{2}, \frac12, and 1\frac{1}{2}, which is their sum"""
    whole, parts = re.split(r"\\[dtc]?frac", text)
    top, low = re.findall(rf"\{{({IN_BRACES})\}}|([0-9])", parts)
    fraction = _decimal("".join(top)) / _decimal("".join(low))
    return Number(_decimal(whole) + fraction if whole.strip() else fraction)


@reads(rf"{DECIMAL} ?/ ?{DECIMAL}")
def _ratio(text: str) -> Number:
    """1/2, 2.5 / 3"""
    top, low = text.split("/")
    return Number(_decimal(top) / _decimal(low))


MORE = r" ?(?:\.\.\.|\\[lc]?dots[cbmio]?(?![a-z]))"
BARRED = r"(?:\\(?:overline|bar) ?(?:\{[0-9]+\}|[0-9])|\([0-9]+\))"
DOT = r"\\dot ?(?:\{[0-9]\}|[0-9])"
MARKED = rf"[0-9]*\.[0-9]*{BARRED}(?:{MORE})?|[0-9]*\.[0-9]*{DOT}(?:[0-9]*{DOT})?"


@reads(MARKED)
def _repeating_as_marked(text: str) -> Number:
    r"""0.1\overline{6}, 0.1(6) and 0.\dot{1}4285\dot{7}: head, then a block without end."""
    head, tail = re.match(r"([0-9]*\.[0-9]*)(.*)", text, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return _endless(head, "".join(re.findall("[0-9]", tail)))


WITH_DOTS = rf"[0-9]*\.[0-9]+{MORE}"


@reads(WITH_DOTS)
def _repeating_as_written(text: str) -> Number:
    """0.1666...: the block that was written at least twice goes on; of several, the one that covers most."""
    digits = re.sub(r"[^0-9.]|\.+\s*\Z", "", text)
    places = digits.split(".")[1]
    best, covered = "", 0
    for length in range(1, min(len(places) // 2, 30) + 1):
        block, count = places[-length:], 0
        while places.endswith(block * (count + 1)):
            count += 1
        if count >= 2 and count * length > covered:
            best, covered = block, count * length
    return _endless(digits, best) if best else Number(_decimal(digits))


POWER = r"(?:\^|\*\*) ?(?:\{ ?[+-]? ?[0-9]+ ?\}|\( ?[+-]? ?[0-9]+ ?\)|[+-]?[0-9]+)"


@reads(rf"{DECIMAL} ?(?:\\times|\\cdot|\*|x) ?10 ?{POWER}|{DECIMAL} ?{POWER}")
def _power(text: str) -> Number:
    r"""10^6, 2 \times 10^3"""
    before, power = re.split(r"\^|\*\*", text)
    *factor, root = re.split(r"\\times|\\cdot|\*|x", before)
    exponent = int(re.sub(r"[^0-9-]", "", power))
    if abs(exponent) > LARGEST_POWER:
        raise ValueError("too large")
    return Number((_decimal(factor[0]) if factor else 1) * _decimal(root) ** exponent)


@reads(rf"{DECIMAL}[eE][+-]?[0-9]{{1,3}}(?![0-9A-Za-z])")
def _with_exponent(text: str) -> Number:
    """3e5, 1e-06"""
    return Number(_decimal(text))


SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}


@reads(rf"{DECIMAL} ?(?:\\text ?\{{ ?)?(?i:{'|'.join(SCALES)})(?![a-z])\}}?")
def _scaled(text: str) -> Number:
    r"""2.5 million, 3\text{ thousand}"""
    *_, word = re.findall("[a-z]+", text.lower())
    return Number(_decimal(re.split(r"[A-Za-z\\]+[{A-Za-z ]*\}?\Z", text)[0]) * 10 ** SCALES[word])


@reads(DECIMAL)
def _plain(text: str) -> Number:
    """1,234.50"""
    return Number(_decimal(text))


def _decimal(text: str) -> Fraction:
    """Without what separates thousands."""
    return Fraction(re.sub(r"[^0-9.eE+-]", "", text.strip()))


def _endless(head: str, block: str) -> Number:
    """head, then the digits of block again and again: block / (10^places (10^len(block) - 1)) beyond the head."""
    places = len(head.split(".")[1])
    rest = Fraction(int(block), 10**places * (10 ** len(block) - 1))
    return Number(_decimal(head.strip(".") or "0") + rest)


ENDLESS = re.compile(f"{MARKED}|{WITH_DOTS}")
NUMBER = re.compile("|".join(f"(?:{pattern.pattern})" for pattern, _ in READERS))
