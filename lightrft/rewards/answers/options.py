r"""The letter of a multiple choice: B, (B), B), B., [B], \textbf{(B) } 12, and in a sentence "the answer is (B)"."""

from __future__ import annotations

import re
from typing import NamedTuple

from lightrft.rewards.answers.commands import WRAPPERS


class Option(NamedTuple):
    letter: str
    content: str


LETTER = re.compile(
    rf"(?:\\(?:{WRAPPERS}) ?\{{)? ?"
    r"(?:\(([A-Ja-j])\)|\[([A-Ja-j])\]|([A-J])[).:]|([A-J])(?=\}|\Z)) ?\}?(?=\s|\\[ ,;:]|~|\}|\Z)"
)


def option(text: str) -> Option | None:
    """The letter that a text begins with and what follows it. `text` is `peeled`."""
    match = LETTER.match(text)
    if not match:
        return None
    letter = next(filter(None, match.groups())).upper()
    return Option(letter, text[match.end() :].strip(" .:\\,;~}"))


STATED = re.compile(
    r"(?i:\banswer|\boption|\bchoice)(?i:\s(?:is|letter))?\s?:?\s?(?i:option|choice|is)?\s?[:*$({\[]{0,4}"
    r"(?:\\(?:text|textbf|mathbf|mathrm|boxed) ?\{\(?)?([A-J])"
    r"(?:(?=\)\s[^(])|(?:\)|\]|\})*(?=[*$.,;:!\s]*(?:\Z|\n|[.,;:!*$]\s|because\b|since\b|as\b)))"
)
ANOTHER = re.compile(r"[*$)\]}]*\s?(?:,|/|or\b|and\b)\s?(?:or |and |option )?[*$(\[{]*[A-J](?![A-Za-z])")  # B or C


def stated_letter(text: str) -> str | None:
    """The letter that a sentence calls the answer; None where it names none, or two that differ."""
    matches = list(STATED.finditer(text))
    answers = [match for match in matches if match.group().lower().startswith("answer")]
    named = answers or matches
    if not named or ANOTHER.match(text, named[-1].end(1)):
        return None
    letters = {match[1] for match in named}
    return named[-1][1] if answers or len(letters) == 1 else None
