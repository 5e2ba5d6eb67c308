r"""Where an answer stands in a text: what is around a lone one, and which part of a sentence it is.

Texts are read as `typography.plain` leaves them.
"""

from __future__ import annotations

import re

from lightrft.rewards.answers.commands import RELATIONS, WRAPPERS
from lightrft.rewards.answers.extraction import inside

LONGEST = 10_000  # characters from the end of a response, in which the answer is looked for where no box shows it

WRAPPED = re.compile(rf"(?:\\(?:{WRAPPERS}|boxed|fbox) ?)?\{{")
AROUND = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("'", "'"))
LEADING = re.compile(rf"\A(?:\\(?:{RELATIONS})(?![A-Za-z])|\\[,;:! ]|~|=)")
TRAILING = re.compile(r"(?:\\[,;:! ]|~|\\\\|,|;|(?<!\.\.)\.|(?<=\.\.\.)\.)\Z")  # of 0.333.... the fourth dot
MOST_LAYERS = 20
FORMULA = (
    r"(?:(?<!\\)\$\$?(?:[^$\\]|\\.){1,2000}\$\$?|\\\((?:[^\\]|\\[^)]){1,2000}\\\)|\\\[(?:[^\\]|\\[^\]]){1,2000}\\\])"
)
DELIMITED = re.compile(FORMULA, re.DOTALL)
SEVERAL = re.compile(rf"{FORMULA}(?:\s?(?:,\s?(?:and |or )?|and|or)\s?{FORMULA})*", re.DOTALL)  # $3$ and $-3$
FILLER = r"(?:(?:therefore|thus|hence|simply|just|then|now|clearly|exactly|about|approximately|equal to|given by),? )*"
STATED = re.compile(rf"(?:\banswers?\b[^.\n:=$\\]{{0,60}}?(?:\bis\b|\bare\b|:|=)|####)[\s:]*{FILLER}", re.IGNORECASE)
END = re.compile(
    r"(?:(?<!\.)\.)?(?:\n|\Z)|(?<!\.)\.(?=\s)|\s(?=\([A-Za-z]{2})|[,;](?=\s(?!\s?(?:and |or )?[-\d\\($]))"
    r"|\s(?:not|because|since|as|which|where|if|when|for)\b"
)


def peeled(text: str) -> str:
    """Without white space, dollars, emphasis, \\text{...} and the like around it, and without a dot at its end."""
    for _ in range(MOST_LAYERS):
        bare = TRAILING.sub("", LEADING.sub("", text.strip())).rstrip()
        opened = _opened(bare)
        if opened == text:
            break
        text = opened
    return text


def _opened(text: str) -> str:
    for start, end in AROUND:
        inner = text[len(start) : -len(end)]
        if text.startswith(start) and text.endswith(end) and len(text) > len(start + end) and start not in inner:
            return inner
    wrapped = WRAPPED.match(text)
    if wrapped and text.endswith("}") and inside(text, wrapped.end()) == text[wrapped.end() : -1]:
        inner = text[wrapped.end() : -1]
        return text if text.startswith("{") and re.search("[,;]", inner) else inner  # {5, 6} is a set
    return text


def statement(text: str) -> str | None:
    """What follows the last "the answer is", up to the end of what it says; None where nothing says so."""
    found = list(STATED.finditer(text))
    if not found:
        return None
    said = text[found[-1].end() :]
    formulas = SEVERAL.match(said)
    if formulas:
        return _contents(formulas.group())
    end = END.search(said)
    return said[: end.start()] if end else said


def last_formula(text: str) -> tuple[str | None, str]:
    """What stands last between dollars or their like, and what follows it; without any, None and the text."""
    found = list(SEVERAL.finditer(text))
    return (_contents(found[-1].group()), text[found[-1].end() :]) if found else (None, text)


def _contents(formulas: str) -> str:
    return ", ".join(
        each.strip("$").removeprefix("\\(").removeprefix("\\[").removesuffix("\\)").removesuffix("\\]")
        for each in DELIMITED.findall(formulas)
    )
