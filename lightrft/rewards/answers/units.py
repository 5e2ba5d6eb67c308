"""Units that are told apart, how they are spelled, and which of them is a part of which."""

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
KNOWN = {spelling: unit for unit, spellings in UNITS.items() for spelling in spellings.split()}
LETTERS = {unit: unit for unit in "m g s h l".split()}  # where they are set as text: else they may be unknowns  # noqa: SIM905
RATES = {"mi/h": "mph"}  # of two names the one that is known
PARTS = ("y month week d h min s", "mi yd ft inch", "km m cm mm", "kg g mg", "lb oz", "dollar cent", "l ml",
         "degree min s")  # fmt: skip

GAP = r"(?: |\\[, ;:]|~|\\text ?\{ ?){0,3}"
GREATER = re.compile(rf"[0-9]{GAP}([A-Za-z]{{1,12}})\.? ?\}}?(?:,? and|,)?{GAP}\Z")
LESSER = re.compile(rf"{GAP}([A-Za-z]{{1,12}})(?![A-Za-z])")


def unit_of(word: str, with_letters: bool) -> str | None:
    """The unit that a word in small letters spells, in one or several; None for what is not known."""
    single = word.removesuffix("s") if len(word) > 2 else word
    return KNOWN.get(single) or (LETTERS.get(single) if with_letters else None)


def in_parts(before: str, after: str) -> bool:
    """Whether a number is the lesser part of what is said in parts: of 3 hours 18 minutes the 18."""
    greater, lesser = GREATER.search(before), LESSER.match(after)
    if greater is None or lesser is None:
        return False
    one, other = (unit_of(found[1].lower(), with_letters=True) for found in (greater, lesser))
    if one is None or other is None:
        return False
    return any({one, other} <= set(row) and row.index(one) < row.index(other) for row in map(str.split, PARTS))
