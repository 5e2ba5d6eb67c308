r"""A text that is one number with what may stand around it: a sign, a currency, a unit."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from lightrft.rewards.answers.numbers import MOST_CHARACTERS, NUMBER, Number, number
from lightrft.rewards.answers.units import CURRENCY, RATES, unit_of


class Quantity(NamedTuple):
    """A number, or what the library read. `unit`: as `UNITS` names it, m/s, km^2 or %; empty for none, or another."""

    amount: Number | list[Any]
    unit: str = ""


SIGNS_BEFORE = re.compile(rf"((?:[-+]|{CURRENCY}|\s|\\[,;:! ]|~|\\text ?\{{{CURRENCY}\}})*)(.*)", re.DOTALL)


def quantity(text: str) -> Quantity | None:
    """The number that a text is, with a sign, a currency and a unit at most. `text` is `plain` and `peeled`."""
    signs, rest = SIGNS_BEFORE.fullmatch(text[:MOST_CHARACTERS]).groups()  # pyright: ignore[reportOptionalMemberAccess]
    sign, match = re.sub(r"[^-+]", "", signs), NUMBER.match(rest)
    if match is None or sign not in ("", "-", "+") or len(text) > MOST_CHARACTERS:
        return None
    value, unit = number(match.group()), _unit(rest[match.end() :])
    if value is None or unit is None:
        return None
    return Quantity(value._replace(value=-value.value) if sign == "-" else value, unit)


def without_unit(text: str) -> tuple[str, str]:
    r"""A formula, such as 2\pi\text{ cm}, without the unit at its end, and that unit."""
    match = UNIT_AT_END.search(text)
    unit = _unit(match.group()) if match else None
    if match is None or unit is None or not match.start() or (match["words"] and not unit):
        return text, ""
    return text[: match.start()], unit


GAP = r"(?:\s|\\[,;: ]|~)*"
MONEY = re.compile(rf"{GAP}(?:{CURRENCY}|\\text ?\{{ ?{CURRENCY} ?\}})")
UNIT = re.compile(
    rf"{GAP}(?:"
    r"\\(?:text|textrm|textit|mathrm|mbox|operatorname) ?\{(?P<text>[^{}0-9]{1,60})\}"
    r"|\^ ?(?:\{ ?)?\\circ ?\}?(?: ?[CF])?"
    r"|(?P<words>(?<![A-Za-z\\])[A-Za-z]{2,20}(?: [A-Za-z]{2,20}){0,2}(?:/[a-z]{1,10})?|(?<=[ ~,;:])m/s(?![A-Za-z]))"
    r")(?:\s?\^ ?\{?[23]\}?)?"
)
UNIT_AT_END = re.compile(rf"{UNIT.pattern}\Z")
# Words after a number that make another number or another kind of answer of it.
NO_UNITS = frozenset(
    "or and to mod pi ln log sin cos tan exp am pm percent pct base times plus minus over dozen score gross repeating "  # noqa: SIM905
    "recurring hundred thousand million billion trillion lakh crore if when for not is are".split()
)


def _unit(text: str) -> str | None:
    """The unit that a text is, empty for one that is not in our tables; None for what is no unit."""
    if not text or MONEY.fullmatch(text):
        return ""
    match = UNIT.fullmatch(text)
    if match is None:
        return None
    words = re.findall("[a-z]+", (match["text"] or match["words"] or "").lower())
    is_rate = "/" in text or "per" in words
    units = [unit_of(word, with_letters=bool(match["text"]) or is_rate) for word in words if word != "per"]
    if NO_UNITS & set(words) or (match["words"] and not any(units[:1]) and _may_be_a_product(text, words[0])):
        return None
    power = re.search(r"[23]\}?\Z", text)
    unit = "/".join(filter(None, units)) if all(units) and len(units) == 1 + is_rate else ""
    return f"{unit}^{power[0][0]}" if unit and power else RATES.get(unit, unit)


def _may_be_a_product(text: str, word: str) -> bool:
    """Letters that touch the number, two letters, or a, b, c, x, y, z alone: 5ab is no amount of ab."""
    return text[0].isalpha() or len(word) < 3 or not set(word) - set("abcxyz")
