r"""A text that is one number with what may stand around it, a sign, a currency, a unit; and moments, such as 12:30."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from lightrft.rewards.answers.last_number import CURRENCY
from lightrft.rewards.answers.numbers import LONGEST, NUMBER, Number, number
from lightrft.rewards.answers.units import RATES, unit_of

# Words after a number that make another number or another kind of answer of it.
NO_UNITS = frozenset(
    "or and to mod pi ln log sin cos tan exp am pm percent pct base times plus minus over dozen score gross repeating "  # noqa: SIM905
    "recurring hundred thousand million billion trillion lakh crore if when for not is are".split()
)
IN_TEXT = r"\\(?:text|textrm|textit|mathrm|mbox|operatorname) ?\{([^{}0-9]{1,60})\}"
DEGREES = r"\^ ?(?:\{ ?)?\\circ ?\}?"
UNIT_WORDS = r"(?<![A-Za-z\\])[A-Za-z]{2,20}(?: [A-Za-z]{2,20}){0,2}(?:/[a-z]{1,10})?|(?<=[ ~,;:])m/s(?![A-Za-z])"
UNIT = re.compile(rf"(?:\s|\\[,;: ]|~)*(?:{IN_TEXT}|{DEGREES}(?: ?[CF])?|({UNIT_WORDS}))(?:\s?\^ ?\{{?[23]\}}?)?")
UNIT_AT_END = re.compile(rf"{UNIT.pattern}\Z")
SIGNED = re.compile(rf"((?:[-+]|{CURRENCY}|\s|\\[,;:! ]|~|\\text ?\{{{CURRENCY}\}})*)(.*)", re.DOTALL)
MONEY_AFTER = re.compile(rf"(?:\s|\\[,;: ]|~)*(?:{CURRENCY}|\\text ?\{{ ?{CURRENCY} ?\}})")
CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s?(?:([ap])\.?m\.?)?|([0-9]{1,2})\s?([ap])\.?m\.?", re.I)
DAY = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})|([0-9]{1,2})([/.])([0-9]{1,2})\6([0-9]{2,4})")


class Quantity(NamedTuple):
    """A number, or what the library read. `unit`: as `UNITS` names it, m/s, km^2 or %; empty for none, or another."""

    amount: Number | list[Any]
    unit: str = ""


def quantity(text: str) -> Quantity | None:
    """The number that a text is, with a sign, a currency and a unit at most. `text` is `plain` and `peeled`."""
    signs, rest = SIGNED.fullmatch(text[:LONGEST]).groups()  # pyright: ignore[reportOptionalMemberAccess]
    sign = re.sub(r"[^-+]", "", signs)
    found = NUMBER.match(rest)
    value = number(found.group()) if found and sign in ("", "-", "+") and len(text) <= LONGEST else None
    if found is None or value is None:
        return None
    unit = _unit(rest[found.end() :])
    return None if unit is None else Quantity(value._replace(value=-value.value) if sign == "-" else value, unit)


def _unit(text: str) -> str | None:
    """None for what is no unit."""
    found = UNIT.fullmatch(text)
    if not text or MONEY_AFTER.fullmatch(text):
        return ""
    if found is None:
        return None
    words = re.findall("[a-z]+", (found[1] or found[2] or "").lower())
    rate = "/" in text or "per" in words
    units = [unit_of(word, with_letters=bool(found[1]) or rate) for word in words if word != "per"]
    first = units[0] if units else None
    touching = found[2] and text[0].isalpha()
    product = found[2] and (len(words[0]) < 3 or not set(words[0]) - set("abcxyz"))
    if NO_UNITS & set(words) or (first is None and (touching or product)):
        return None
    power = re.search(r"[23]\}?\Z", text)
    unit = "/".join(filter(None, units)) if all(units) and len(units) == 1 + rate else ""
    return f"{unit}^{power[0][0]}" if unit and power else RATES.get(unit, unit)


def without_unit(text: str) -> tuple[str, str]:
    r"""A formula, such as 2\pi\text{ cm}, without the unit at its end, and that unit."""
    found = UNIT_AT_END.search(text)
    unit = _unit(found.group()) if found else None
    if found is None or unit is None or not found.start() or (found[2] and not unit):
        return text, ""
    return text[: found.start()], unit


def moment(text: str) -> tuple[str, ...] | None:
    """A time of day or a date, as the numbers that it is written with; they are compared and never computed with."""
    text = re.sub(r"\\text ?\{ ?([^{}]{1,9})\}", r" \1", text).replace("  ", " ")
    found = CLOCK.fullmatch(text) or DAY.fullmatch(text)
    return found and tuple((group or "").lstrip("0").lower() for group in found.groups())
