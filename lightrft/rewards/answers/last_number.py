r"""The last number of a text, as a person would take it for the answer.

The last number answers for the text only if it stands for itself. It is no answer as a part of something else: an
operand (x^2 + 3, 2\pi, \sqrt{5}), a bound (x > 5), one of a pair or list that is the whole answer (3, 5), of a date, a
time or a ratio (12:30). A number in a name (x_2, A4, sha256) is passed over. With a minus, what is around it decides
between sign and dash; where that leaves two readings, as in a list's "- 5", there is none.
"""

from __future__ import annotations

import re

from lightrft.rewards.answers.commands import FUNCTIONS, PLACEMENT, RELATIONS, WRAPPERS
from lightrft.rewards.answers.numbers import MOST_CHARACTERS, NUMBER, Number, number
from lightrft.rewards.answers.typography import plain
from lightrft.rewards.answers.units import CURRENCY, is_lesser_part

DIGITS = "0123456789"
CONTEXT = 100  # characters before and after a number that decide its meaning
WINDOWS = (150, MOST_CHARACTERS)  # characters before its last digit in which a number begins: most are short
MARGIN = 20  # what begins so near to a window's start may begin before it
MOST_NAMES = 20  # passed over; a text of nothing else holds no answer


def last_number_in(text: str) -> Number | None:
    """None where there is none, or none that stands for itself."""
    text = plain(text)
    for _ in range(MOST_NAMES):
        span = _last_span(text)
        if span is None:
            return None
        start, end = span
        before, after = text[max(0, start - CONTEXT) : start], text[end : end + CONTEXT]
        if not _is_in_a_name(before):
            return _if_it_stands_for_itself(before, text[start:end], after, at_start=start <= CONTEXT)
        text = text[:start]
    return None


def _last_span(text: str) -> tuple[int, int] | None:
    """Where the last number begins and ends; None for one that is too long."""
    last_digit = max(map(text.rfind, DIGITS))
    for window in WINDOWS:
        start = max(0, last_digit - window)
        matches = list(NUMBER.finditer(text[start : last_digit + 1 + CONTEXT]))
        if matches and (start == 0 or matches[-1].start() > MARGIN):
            return start + matches[-1].start(), start + matches[-1].end()
    return None


# Each pattern ..._BEFORE is for the text before a number and ends with it; ..._AFTER begins where the number ends.

NAME_BEFORE = re.compile(
    r"(?:[A-Za-z]"  # x2
    r"|_ ?\{?"  # x_2
    r"|(?:[A-Za-z]{2}|[0-9] m|\\(?:text|mathrm) ?\{[^{}]{1,20}\}) ?\^ ?\{?)\Z"  # cm^2, 3 m^2, \text{cm}^2
)


def _is_in_a_name(before: str) -> bool:
    return NAME_BEFORE.search(_without_currency(before)) is not None


def _if_it_stands_for_itself(before: str, digits: str, after: str, at_start: bool) -> Number | None:
    value, sign = number(digits), _sign(before)
    listed = LIST_BEFORE.search(before if at_start else "." + before)
    if value is None or sign is None or listed or OPERAND_AFTER.match(after) or is_lesser_part(before, after):
        return None
    return value._replace(value=sign * value.value)


LIST_BEFORE = re.compile(  # (3, - of (3, 5), from the start of the text or bracket on
    r"(?:^|[(\[{])\s*(?:[-+]? ?[0-9][0-9./]*(?:, (?:and |or )?|,| ?; ?| (?:and|or|to) ))+(?:[-+] ?)?(?:\\?\$)?\Z"
)

MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}\.?"
OPERAND_AFTER = re.compile(
    r" ?(?:\^(?! ?\{? ?(?:\\circ|\\text|\\mathrm|th|st|nd|rd))"  # 5^2, but not degrees, units, 5^{th}
    r"|_"
    r"|[-+*/] ?(?:\(|[B-HJ-Zb-z](?![A-Za-z])|\\(?:sqrt|pi|frac))"  # 5 + x, 5(, 5\sqrt2
    rf"|\\(?!(?:{WRAPPERS}|{RELATIONS}|{PLACEMENT}|circ|degrees?|right|blacksquare|square|qed)(?![A-Za-z]))[A-Za-z]+"
    r"|(?i:[ap]\.?m\b|o'clock|repeating|recurring)"
    rf"|(?:st|nd|rd|th)? ?(?:of )?{MONTH}(?![a-z]))"  # 5th of May
    r"|(?:[abceijknpqrtuvwxyzBKM]|[xyzabcn]{2,3}|pi)(?![A-Za-z])"  # 5x, 5ab, 5pi
    r"|\([A-Za-z0-9]"  # 5(x
)
FUNCTION = rf"(?<![A-Za-z])(?:{FUNCTIONS}|sqrt)"
COMMAND = rf"\\(?!(?:{RELATIONS}|{PLACEMENT})(?![A-Za-z]))[A-Za-z]+"
OPERAND_BEFORE = re.compile(  # whatever stands between it and the number that does not count
    r"(?:[/^±+]"
    r"|[-+*/^] ?\("
    r"|(?<![-=\n])(?<!^)[<>]|[<>!]=|[0-9)] ?x"  # x > 5, but not -> and => and > at the start of a line
    rf"|(?:{COMMAND}|{FUNCTION})(?:_\{{?\w{{1,9}}\}}?)? ?\{{?"  # \sqrt{5, log_2 5
    r"|(?i:\bbetween [^.;\n]{1,60}? and"
    r"|(?:\bnot|n't)(?: be)?"
    rf"|\bbase|\bmod|\bmodulo)[- (]*|{MONTH}(?: [0-9]{{1,2}}(?:st|nd|rd|th)?,?)?)\Z"
)
OPERAND_TOUCHING_BEFORE = re.compile(
    r"(?:[0-9][:.,']"  # 12:30
    r"|[A-Za-z]\("  # f(5
    r"|[\w}\])]\)|(?:\^|\}) ?\{"
    r"|[\w)\]}]\*{1,2} ?|[\w)\]}] \*{1,2} )\Z"  # 3*5, 3 * 5, but not the **5 of emphasis
)

SIGN_BEFORE = re.compile(r"(?:[-+]|(?<![A-Za-z])(?:minus|negative|plus|positive))\Z", re.IGNORECASE)
WORD_BEFORE = re.compile(r"\\?[A-Za-z]+\Z")
SAYS = re.compile(rf"(?i:is|are|be|was|equals?|get|gives?|to)|\\(?:{RELATIONS})")  # a sign follows, no dash


def _sign(before: str) -> int | None:
    """1 or -1; None after an operator, or where a dash could be either."""
    near = _without_what_does_not_count(before)
    sign = SIGN_BEFORE.search(near)
    if not sign:
        operand = OPERAND_BEFORE.search(near) or OPERAND_TOUCHING_BEFORE.search(_without_currency(before))
        return None if operand else 1
    factor = -1 if sign.group().lower() in ("-", "minus", "negative") else 1
    spaced = before[sign.end() : sign.end() + 1] == " " and sign.group() in "+-"
    rest = near[: sign.start()]
    left = _without_what_does_not_count(rest)
    word, operand = WORD_BEFORE.search(left), OPERAND_BEFORE.search(left)
    if word and not operand:
        return _sign_after_a_word(word.group(), factor, touching=left == rest, spaced=spaced)
    if operand or left[-1:].isdigit() or left[-1:] in tuple(")]}+-*/^") or OPERAND_TOUCHING_BEFORE.search(rest):
        return factor if not left else None
    return None if spaced and left.endswith("\n") else factor


def _sign_after_a_word(word: str, factor: int, touching: bool, spaced: bool) -> int | None:
    if SAYS.fullmatch(word):
        return factor
    if word.startswith("\\") or len(word) == 1 or spaced:
        return None
    return 1 if touching else factor  # option-3 has a hyphen


DOES_NOT_COUNT = re.compile(rf"(?: |\\[,;:! ]|{CURRENCY}|\\(?:{WRAPPERS}) ?\{{|\\left)\Z")
CURRENCY_BEFORE = re.compile(rf"{CURRENCY}\Z")


def _without_what_does_not_count(text: str) -> str:
    return _without_ends(text, DOES_NOT_COUNT)


def _without_currency(text: str) -> str:
    return _without_ends(text, CURRENCY_BEFORE)


def _without_ends(text: str, pattern: re.Pattern[str]) -> str:
    while match := pattern.search(text[-CONTEXT:]):
        text = text[: len(text) - len(match.group())]
    return text
