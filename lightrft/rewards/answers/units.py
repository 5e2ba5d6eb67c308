"""Units that can differ, how they are spelled, and which of them is a part of which; and signs of currencies."""

from __future__ import annotations

import re

# Spellings of units that are told apart; of others it is not known whether they mean the same.
UNITS = {
    "km": "kilometer kilometre km", "cm": "centimeter centimetre cm", "mm": "millimeter millimetre mm",
    "m": "meter metre", "mi": "mile", "ft": "foot feet ft", "inch": "inch inche", "yd": "yard yd",
    "kg": "kilogram kg", "g": "gram", "mg": "milligram mg", "lb": "pound lb", "oz": "ounce oz",
    "s": "second sec", "min": "minute min", "h": "hour hr", "d": "day", "week": "week",
    "month": "month", "y": "year yr",
    "l": "liter litre", "ml": "milliliter millilitre ml",
    "mph": "mph", "cent": "cent", "dollar": "dollar usd", "degree": "degree deg", "radian": "radian rad",
}  # fmt: skip
UNIT_OF_SPELLING = {spelling: unit for unit, spellings in UNITS.items() for spelling in spellings.split()}
LETTERS = {"m", "g", "s", "h", "l"}  # units only where they are set as text: else they may be unknowns
RATES = {"mi/h": "mph"}  # of two names the one that is in UNITS
PARTS = ("y month week d h min s", "mi yd ft inch", "km m cm mm", "kg g mg", "lb oz", "dollar cent", "l ml",
         "degree min s")  # each row from the greatest to the least  # fmt: skip

CURRENCY = (
    r"(?:(?<![A-Za-z])(?:US|CA|AU|HK|NZ|[ACRS])?\\?\$|[€£¥₹₩₽]|\\(?:pounds|euro|yen)(?![a-z]) ?"
    r"|(?<![A-Za-z])(?:USD|EUR|GBP|INR|CHF|JPY|CNY|Rs\.?))"
)


def unit_of(word: str, with_letters: bool) -> str | None:
    """The unit that a word in small letters spells, in one or several; None for what is in no table here."""
    single = word.removesuffix("s") if len(word) > 2 else word
    return UNIT_OF_SPELLING.get(single) or (single if with_letters and single in LETTERS else None)


GAP = r"(?: |\\[, ;:]|~|\\text ?\{ ?){0,3}"
GREATER_BEFORE = re.compile(rf"[0-9]{GAP}([A-Za-z]{{1,12}})\.? ?\}}?(?:,? and|,)?{GAP}\Z")
LESSER_AFTER = re.compile(rf"{GAP}([A-Za-z]{{1,12}})(?![A-Za-z])")


def is_lesser_part(before: str, after: str) -> bool:
    """Whether the number between the two texts is the lesser part of an amount: of 3 hours 18 minutes the 18."""
    greater, lesser = GREATER_BEFORE.search(before), LESSER_AFTER.match(after)
    if greater is None or lesser is None:
        return False
    one, other = (unit_of(match[1].lower(), with_letters=True) for match in (greater, lesser))
    if one is None or other is None:
        return False
    return any({one, other} <= set(row) and row.index(one) < row.index(other) for row in map(str.split, PARTS))
