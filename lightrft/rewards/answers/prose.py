r"""Where an answer stands in a text: what is around a lone one, and which part of a sentence it is.

Texts are read as `typography.plain` leaves them.
"""

from __future__ import annotations

import re

from lightrft.rewards.answers.commands import RELATIONS, WRAPPERS
from lightrft.rewards.answers.extraction import inside

MOST_LAYERS = 20
LEADING = re.compile(rf"\A(?:\\(?:{RELATIONS})(?![A-Za-z])|\\[,;:! ]|~|=)")
TRAILING = re.compile(r"(?:\\[,;:! ]|~|\\\\|,|;|(?<!\.\.)\.|(?<=\.\.\.)\.)\Z")  # of 0.333.... the fourth dot


def peeled(text: str) -> str:
    """Without white space, dollars, emphasis, \\text{...} and the like around it, and without a dot at its end."""
    for _ in range(MOST_LAYERS):
        bare = TRAILING.sub("", LEADING.sub("", text.strip())).rstrip()
        inner = _without_a_layer(bare)
        if inner == text:
            break
        text = inner
    return text


AROUND = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ("'", "'"))
WRAPPER = re.compile(rf"(?:\\(?:{WRAPPERS}|boxed|fbox) ?)?\{{")


def _without_a_layer(text: str) -> str:
    for start, end in AROUND:
        inner = text[len(start) : -len(end)]
        if text.startswith(start) and text.endswith(end) and len(text) > len(start + end) and start not in inner:
            return inner
    wrapper = WRAPPER.match(text)
    if wrapper and text.endswith("}") and inside(text, wrapper.end()) == text[wrapper.end() : -1]:
        inner = text[wrapper.end() : -1]
        return text if text.startswith("{") and re.search("[,;]", inner) else inner  # {5, 6} is a set
    return text


FORMULA = (  # $...$, $$...$$, \(...\), \[...\]
    r"(?:(?<!\\)\$\$?(?:[^$\\]|\\.){1,2000}\$\$?|\\\((?:[^\\]|\\[^)]){1,2000}\\\)|\\\[(?:[^\\]|\\[^\]]){1,2000}\\\])"
)
ONE_FORMULA = re.compile(FORMULA, re.DOTALL)
FORMULAS = re.compile(rf"{FORMULA}(?:\s?(?:,\s?(?:and |or )?|and|or)\s?{FORMULA})*", re.DOTALL)  # $3$ and $-3$
FILLER = r"(?:(?:therefore|thus|hence|simply|just|then|now|clearly|exactly|about|approximately|equal to|given by),? )*"
ANSWER_IS = re.compile(rf"(?:\banswers?\b[^.\n:=$\\]{{0,60}}?(?:\bis\b|\bare\b|:|=)|####)[\s:]*{FILLER}", re.IGNORECASE)
END_OF_ANSWER = re.compile(
    r"(?:(?<!\.)\.)?(?:\n|\Z)"  # of the line, with its full stop
    r"|(?<!\.)\.(?=\s)"
    r"|\s(?=\([A-Za-z]{2})"  # (a remark
    r"|[,;](?=\s(?!\s?(?:and |or )?[-\d\\($]))"  # a comma, if no further number or formula follows
    r"|\s(?:not|because|since|as|which|where|if|when|for)\b"
)


def statement(text: str) -> str | None:
    """What follows the last "the answer is", up to the end of what it says; None where nothing says so."""
    matches = list(ANSWER_IS.finditer(text))
    if not matches:
        return None
    rest = text[matches[-1].end() :]
    formulas, end = FORMULAS.match(rest), END_OF_ANSWER.search(rest)
    if formulas:
        return _contents(formulas.group())
    return rest[: end.start()] if end else rest


def last_formula(text: str) -> tuple[str | None, str]:
    """What stands last between dollars or their like, and what follows it; without any, None and the text."""
    matches = list(FORMULAS.finditer(text))
    return (_contents(matches[-1].group()), text[matches[-1].end() :]) if matches else (None, text)


def _contents(formulas: str) -> str:
    return ", ".join(
        each.strip("$").removeprefix("\\(").removeprefix("\\[").removesuffix("\\)").removesuffix("\\]")
        for each in ONE_FORMULA.findall(formulas)
    )
