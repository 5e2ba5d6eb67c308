r"""The last number of a text, as a person would take it for the answer.

The last number answers for the text only if it stands for itself. It is no answer as a part of something else: an
operand (x^2 + 3, 2\pi, \sqrt{5}), a bound (x > 5), one of a pair or list that is the whole answer (3, 5), of a date, a
time or a ratio (12:30). A number in a name (x_2, A4, sha256) is passed over. With a minus, what is around it decides
between sign and dash; where that leaves two readings, as in a list's "- 5", there is none.
"""

from __future__ import annotations

import re

from lightrft.rewards.answers.commands import FUNCTIONS, PLACEMENT, RELATIONS, WRAPPERS
from lightrft.rewards.answers.numbers import LONGEST, NUMBER, Number, number
from lightrft.rewards.answers.typography import plain
from lightrft.rewards.answers.units import in_parts

LOOK = 100  # characters around a number, of which its meaning is told
WINDOWS = (150, LONGEST)  # characters before its last digit in which a number begins: most are short
MARGIN = 20  # what begins so near to a window's start may begin before it
MOST_NAMES = 20  # passed over; a text of nothing else holds no answer
DIGITS = "0123456789"

CURRENCY = (
    r"(?:(?<![A-Za-z])(?:US|CA|AU|HK|NZ|[ACRS])?\\?\$|[€£¥₹₩₽]|\\(?:pounds|euro|yen)(?![a-z]) ?"
    r"|(?<![A-Za-z])(?:USD|EUR|GBP|INR|CHF|JPY|CNY|Rs\.?))"
)
SKIPPED = re.compile(rf"(?: |\\[,;:! ]|{CURRENCY}|\\(?:{WRAPPERS}) ?\{{|\\left)\Z")
CURRENCY_ONLY = re.compile(rf"{CURRENCY}\Z")
SIGN = re.compile(r"(?:[-+]|(?<![A-Za-z])(?:minus|negative|plus|positive))\Z", re.IGNORECASE)
WORD = re.compile(r"\\?[A-Za-z]+\Z")
SAYS = re.compile(rf"(?i:is|are|be|was|equals?|get|gives?|to)|\\(?:{RELATIONS})")
NAME = re.compile(
    r"(?:[A-Za-z]|_ ?\{?|(?:[A-Za-z]{2}|[0-9] m|\\(?:text|mathrm) ?\{[^{}]{1,20}\}) ?\^ ?\{?)\Z"
)  # x2, cm^2
MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"

# What stands before a number that is a part of something else: touching it, and with spaces between.
TOUCHED = re.compile(r"(?:[0-9][:.,']|[A-Za-z]\(|[\w}\])]\)|(?:\^|\}) ?\{|[\w)\]}]\*{1,2} ?|[\w)\]}] \*{1,2} )\Z")
FUNCTION = rf"(?<![A-Za-z])(?:{FUNCTIONS}|sqrt)"
COMMAND = rf"\\(?!(?:{RELATIONS}|{PLACEMENT})(?![A-Za-z]))[A-Za-z]+"
OPERAND_AFTER = re.compile(
    rf"(?:[/^±+]|[-+*/^] ?\(|(?<![-=\n])(?<!^)[<>]|[<>!]=|[0-9)] ?x"
    rf"|(?:{COMMAND}|{FUNCTION})(?:_\{{?\w{{1,9}}\}}?)? ?\{{?"
    rf"|(?i:\bbetween [^.;\n]{{1,60}}? and|(?:\bnot|n't)(?: be)?"
    rf"|\bbase|\bmod|\bmodulo)[- (]*|{MONTH}(?: [0-9]{{1,2}}(?:st|nd|rd|th)?,?)?)\Z"
)
LISTED = re.compile(
    r"(?:^|[(\[{])\s*(?:[-+]? ?[0-9][0-9./]*(?:, (?:and |or )?|,| ?; ?| (?:and|or|to) ))+(?:[-+] ?)?(?:\\?\$)?\Z"
)
# What stands after it.
OPERAND_BEFORE = re.compile(
    r" ?(?:\^(?! ?\{? ?(?:\\circ|\\text|\\mathrm|th|st|nd|rd))|_"
    r"|[-+*/] ?(?:\(|[B-HJ-Zb-z](?![A-Za-z])|\\(?:sqrt|pi|frac))"
    rf"|\\(?!(?:{WRAPPERS}|{RELATIONS}|{PLACEMENT}|circ|degrees?|right|blacksquare|square|qed)(?![A-Za-z]))[A-Za-z]+"
    r"|(?i:[ap]\.?m\b|o'clock|repeating|recurring)"
    rf"|(?:st|nd|rd|th)? ?(?:of )?{MONTH}(?![a-z]))"
    r"|(?:[abceijknpqrtuvwxyzBKM]|[xyzabcn]{2,3}|pi)(?![A-Za-z])|\([A-Za-z0-9]"
)


def last_number_in(text: str) -> Number | None:
    """None where there is none, or none that stands for itself."""
    text = plain(text)
    for _ in range(MOST_NAMES):
        place = _place(text)
        if place is None:
            return None
        start, end = place
        before = text[max(0, start - LOOK) : start]
        if not NAME.search(_stripped(before, CURRENCY_ONLY)):
            return _standing(before, text[start:end], text[end : end + LOOK], at_start=start <= LOOK)
        text = text[:start]
    return None


def _place(text: str) -> tuple[int, int] | None:
    """Where the last number begins and ends; None for one that is too long."""
    last_digit = max(map(text.rfind, DIGITS))
    for window in WINDOWS:
        start = max(0, last_digit - window)
        found = list(NUMBER.finditer(text[start : last_digit + 1 + LOOK]))
        if found and (start == 0 or found[-1].start() > MARGIN):
            return start + found[-1].start(), start + found[-1].end()
    return None


def _standing(before: str, digits: str, after: str, at_start: bool) -> Number | None:
    found = number(digits)
    factor = _sign(before)
    listed = LISTED.search(before if at_start else "." + before)
    if found is None or factor is None or listed or OPERAND_BEFORE.match(after) or in_parts(before, after):
        return None
    return found._replace(value=factor * found.value)


def _sign(before: str) -> int | None:
    """1 or -1; None after an operator, or where a dash could be either."""
    near = _stripped(before)
    sign = SIGN.search(near)
    if not sign:
        return None if OPERAND_AFTER.search(near) or TOUCHED.search(_stripped(before, CURRENCY_ONLY)) else 1
    factor = -1 if sign.group().lower() in ("-", "minus", "negative") else 1
    spaced = before[sign.end() : sign.end() + 1] == " " and sign.group() in "+-"
    rest = near[: sign.start()]
    left = _stripped(rest)
    word = WORD.search(left)
    if word and not OPERAND_AFTER.search(left):
        return _after_a_word(word.group(), factor, touching=left == rest, spaced=spaced)
    if left[-1:].isdigit() or left[-1:] in tuple(")]}+-*/^") or OPERAND_AFTER.search(left) or TOUCHED.search(rest):
        return factor if not left else None
    return None if spaced and left.endswith("\n") else factor


def _after_a_word(word: str, factor: int, touching: bool, spaced: bool) -> int | None:
    if SAYS.fullmatch(word):
        return factor
    if word.startswith("\\") or len(word) == 1 or spaced:
        return None
    return 1 if touching else factor  # option-3 has a hyphen


def _stripped(text: str, skipped: re.Pattern[str] = SKIPPED) -> str:
    while found := skipped.search(text[-LOOK:]):
        text = text[: len(text) - len(found.group())]
    return text
