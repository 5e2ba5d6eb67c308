r"""Numbers as people write them, read exactly: 1,234.50, 1\,000, 1\frac{1}{2}, 0.\overline{3}, 2 \times 10^3, 101_2.

A text is read as `typography.plain` leaves it. What can honestly be read in two ways is no number here, such as 3,5 (a
decimal or two numbers). Every pattern takes time in proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

LONGEST = 1000  # characters; nobody reads a longer number, and exact arithmetic with it takes long
LARGEST_POWER = 999

SEPARATORS = (",", r"\{,\}", r"\\[,;:! ]", "'", "~", " ")  # of thousands; the same all through one number
GROUPED = "|".join(rf"[1-9][0-9]{{0,2}}(?:{separator}[0-9]{{3}})+(?![0-9])" for separator in SEPARATORS)
DECIMAL = rf"(?:(?:{GROUPED}|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+)"
SPACE = r"(?: |\\[,;:! ]|~)?"
INNER = rf" ?-? ?{DECIMAL} ?"
FRAC = rf"\\[dtc]?frac ?(?:\{{{INNER}\}}|[0-9]) ?(?:\{{{INNER}\}}|[0-9])"
RATIO = r"[0-9]+ ?/ ?[0-9]+"
BARRED = r"(?:\\(?:overline|bar) ?(?:\{[0-9]+\}|[0-9])|\([0-9]+\))"
DOT = r"\\dot ?(?:\{[0-9]\}|[0-9])"
MORE = r" ?(?:\.\.\.|\\[lc]?dots[cbmio]?(?![a-z]))"
POWER = r"(?:\^|\*\*) ?(?:\{ ?[+-]? ?[0-9]+ ?\}|\( ?[+-]? ?[0-9]+ ?\)|[+-]?[0-9]+)"
BASE = rf"{SPACE}_ ?(?:\{{(?:[^{{}}]|\{{[^{{}}]{{0,20}}\}}){{1,40}}\}}|[0-9]{{1,2}}(?![0-9]))"
WORDS_OF_BASE = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
PREFIXES = {"0b": 2, "0o": 8, "0x": 16}
SCALES = {"hundred": 2, "thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}


class Number(NamedTuple):
    """101_2 is not the answer 5, nor is 5 the answer 101_2: a base other than ten is part of the answer."""

    value: Fraction
    base: int = 10


def number(text: str) -> Number | None:
    """What a text is that is a number without a sign and nothing else; None for all others."""
    if len(text) > LONGEST:
        return None
    for pattern, read in KINDS:
        if pattern.fullmatch(text):
            try:
                return read(text)
            except (ValueError, KeyError, ZeroDivisionError):  # 109_2, 5_{n}, 1/0, a power that is too large
                return None
    return None


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[^0-9.eE+-]", "", text.strip()))


def _plain(text: str) -> Number:
    return Number(_decimal(text))


def _scaled(text: str) -> Number:
    *_, word = re.findall("[a-z]+", text.lower())
    return Number(_decimal(re.split(r"[A-Za-z\\]+[{A-Za-z ]*\}?\Z", text)[0]) * 10 ** SCALES[word])


def _ratio(text: str) -> Number:
    top, low = text.split("/")
    return Number(_decimal(top) / _decimal(low))


def _frac(text: str) -> Number:
    """Also a mixed number: what stands before the fraction is added."""
    whole, parts = re.split(r"\\[dtc]?frac", text)
    top, low = re.findall(rf"\{{({INNER})\}}|([0-9])", parts)
    fraction = _decimal("".join(top)) / _decimal("".join(low))
    return Number(_decimal(whole) + fraction if whole.strip() else fraction)


def _mixed(text: str) -> Number:
    whole, top, low = re.findall(r"[0-9]+", text)
    return Number(int(whole) + Fraction(int(top), int(low)))


def _repeating(text: str) -> Number:
    r"""0.1\overline{6}, 0.1(6) and 0.\dot{1}4285\dot{7}: head, then a block without end."""
    head, tail = re.match(r"([0-9]*\.[0-9]*)(.*)", text, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return _endless(head, "".join(re.findall("[0-9]", tail)))


def _shown(text: str) -> Number:
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
    return _endless(digits, best) if best else _plain(digits)


def _endless(head: str, block: str) -> Number:
    places = len(head.split(".")[1])
    rest = Fraction(int(block), 10**places * (10 ** len(block) - 1))
    return Number(_decimal(head.strip(".") or "0") + rest)


def _power(text: str) -> Number:
    """10^6, and 2 \times 10^3."""
    before, power = re.split(r"\^|\*\*", text)
    *factor, root = re.split(r"\\times|\\cdot|\*|x", before)
    exponent = int(re.sub(r"[^0-9-]", "", power))
    if abs(exponent) > LARGEST_POWER:
        raise ValueError("too large")
    return Number((_decimal(factor[0]) if factor else 1) * _decimal(root) ** exponent)


def _in_base(text: str) -> Number:
    digits, base = text.split("_")
    found = re.sub(r"\\(?:text|mathrm)|base|[^0-9a-z]", "", base)
    radix = int(found) if found.isdigit() else WORDS_OF_BASE[found]
    return Number(Fraction(int(re.sub("[^0-9A-Fa-f]", "", digits), radix)), radix)


def _coded(text: str) -> Number:
    radix = PREFIXES[text[:2].lower()]
    return Number(Fraction(int(text[2:], radix)), radix)


REPEATING = rf"[0-9]*\.[0-9]*{BARRED}(?:{MORE})?|[0-9]*\.[0-9]*{DOT}(?:[0-9]*{DOT})?"
SHOWN = rf"[0-9]*\.[0-9]+{MORE}"
# The first that matches is meant. Each branch begins with what it needs, so that no text is read again and again.
KINDS: tuple[tuple[re.Pattern[str], Callable[[str], Number]], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        (rf"(?:\([0-9A-F]{{1,80}}\)|[0-9][0-9A-Fa-f]{{0,80}}){BASE}", _in_base),
        (r"0[bB][01]+(?![0-9A-Za-z])|0[oO][0-7]+(?![0-9A-Za-z])|0[xX][0-9A-Fa-f]+(?![0-9A-Za-z])", _coded),
        (rf"[0-9]+(?: |\\[ ,;]|~| ?\+ ?| and ){RATIO}(?! ?/)", _mixed),
        (rf"(?:[0-9]+{SPACE})?{FRAC}", _frac),
        (rf"{DECIMAL} ?/ ?{DECIMAL}", _ratio),
        (REPEATING, _repeating),
        (SHOWN, _shown),
        (rf"{DECIMAL} ?(?:\\times|\\cdot|\*|x) ?10 ?{POWER}|{DECIMAL} ?{POWER}", _power),
        (rf"{DECIMAL}[eE][+-]?[0-9]{{1,3}}(?![0-9A-Za-z])", _plain),
        (rf"{DECIMAL} ?(?:\\text ?\{{ ?)?(?i:{'|'.join(SCALES)})(?![a-z])\}}?", _scaled),
        (DECIMAL, _plain),
    )
)
ENDLESS = re.compile(f"{REPEATING}|{SHOWN}")
NUMBER = re.compile("|".join(f"(?:{pattern.pattern})" for pattern, _ in KINDS))
