r"""The letter of a multiple choice: B, (B), B), B., [B], \textbf{(B) } 12, and in a sentence "the answer is (B)"."""

from __future__ import annotations

import re
from typing import NamedTuple

from lightrft.rewards.answers.commands import WRAPPERS

LETTER = re.compile(
    rf"(?:\\(?:{WRAPPERS}) ?\{{)? ?"
    r"(?:\(([A-Ja-j])\)|\[([A-Ja-j])\]|([A-J])[).:]|([A-J])(?=\}|\Z)) ?\}?(?=\s|\\[ ,;:]|~|\}|\Z)"
)
STATED = re.compile(
    r"(?i:\banswer|\boption|\bchoice)(?i:\s(?:is|letter))?\s?:?\s?(?i:option|choice|is)?\s?[:*$({\[]{0,4}"
    r"(?:\\(?:text|textbf|mathbf|mathrm|boxed) ?\{\(?)?([A-J])"
    r"(?:(?=\)\s[^(])|(?:\)|\]|\})*(?=[*$.,;:!\s]*(?:\Z|\n|[.,;:!*$]\s|because\b|since\b|as\b)))"
)
ANOTHER = re.compile(r"[*$)\]}]*\s?(?:,|/|or\b|and\b)\s?(?:or |and |option )?[*$(\[{]*[A-J](?![A-Za-z])")


class Option(NamedTuple):
    letter: str
    content: str


def option(text: str) -> Option | None:
    """The letter that a text begins with and what follows it; `text` has no wrappers around it any more."""
    found = LETTER.match(text)
    if not found:
        return None
    letter = next(filter(None, found.groups())).upper()
    return Option(letter, text[found.end() :].strip(" .:\\,;~}"))


def stated_letter(text: str) -> str | None:
    """The letter that a sentence calls the answer; None where it names none, or two that differ."""
    found = list(STATED.finditer(text))
    answers = [each for each in found if each.group().lower().startswith("answer")] or found
    if not answers or ANOTHER.match(text, answers[-1].end(1)):
        return None
    letters = {each.group(1) for each in answers}
    certain = answers[-1].group().lower().startswith("answer") or len(letters) == 1
    return answers[-1].group(1) if certain else None
