r"""Which part of a response is its answer. Every rule but `format` asks here, and only here.

1. Thoughts are no answer: all up to the last `</think>` goes. After a `<think>` that nothing closes there is no answer.
2. Of what is left the last `<answer>` is the answer, up to its `</answer>` or, without one, up to the end. A
   `</answer>` alone ends an answer that the prompt began.
3. Without these tags all of it is.

Tags are read in any case. A tag with which the prompt begins the response, such as the `<think>` of a chat template,
counts as the response's; nothing else of the prompt does. A `--stop` text is not part of the answer, unless it can only
close something that the answer has opened. A `\boxed{}` or a JSON object is for the rules to look for within it.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

from lightrft.types import Rollout

THINK = re.compile(r"<\s?(/?)\s?think\s?>", re.IGNORECASE)
ANSWER = re.compile(r"<\s?(/?)\s?answer\s?>", re.IGNORECASE)
CLOSING = re.compile(r"[\s)\]}$>]*")  # with it as the --stop text, \boxed{5} has no other end


def answer_of(response: str, rollout: Rollout | None = None) -> str:
    """The answer's text without white space around it; empty where there is none.

    rollout: names the prompt's opening tag and the stop text.
    """
    if rollout is not None:
        stop = "" if CLOSING.fullmatch(rollout.stop_text) else rollout.stop_text
        response = rollout.prompt.opening + response.removesuffix(stop)
    return _in_answer_tags(without_thoughts(response)).strip()


def has_tags(text: str) -> bool:
    return bool(THINK.search(text) or ANSWER.search(text))


def thoughts_of(response: str, rollout: Rollout | None = None) -> str:
    """What stands between the first `<think>` and the last `</think>`; empty where they are not both there."""
    text = (rollout.prompt.opening if rollout else "") + response
    tags = [(bool(tag.group(1)), tag) for tag in THINK.finditer(text)]
    starts = [tag.end() for closes, tag in tags if not closes]
    ends = [tag.start() for closes, tag in tags if closes]
    return text[starts[0] : ends[-1]] if starts and ends else ""


def without_thoughts(text: str) -> str:
    """All after the last `</think>`; nothing where a `<think>` is never closed."""
    tags = list(THINK.finditer(text))
    if not tags:
        return text
    closed = tags[-1].group(1) == "/"
    return text[tags[-1].end() :] if closed else ""


def _in_answer_tags(text: str) -> str:
    tags = list(ANSWER.finditer(text))
    openings = [index for index, tag in enumerate(tags) if not tag.group(1)]
    start, after = (tags[openings[-1]].end(), openings[-1] + 1) if openings else (0, 0)
    end = tags[after].start() if after < len(tags) else len(text)
    return text[start:end]


BOX = re.compile(r"\\(?:boxed|fbox)\s{0,3}\{")


def last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{}` or `\fbox{}`; empty if it is not closed, None if there is none."""
    boxes = list(BOX.finditer(text))
    return None if not boxes else inside(text, boxes[-1].end()) or ""


BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def inside(text: str, start: int) -> str | None:
    """What stands between the brace that was opened just before `start` and its own end; None if it has none."""
    depth = 1
    for brace in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[start : brace.start()]
    return None


OBJECT = re.compile(r"(?:```(?:json)?\s*)?\\?\{([^`]{1,2000}?)\\?\}(?:\s*```)?")


def in_object(text: str) -> str | None:
    """The answer of a JSON object, its `answer` or its only value; None for a text that is no such object."""
    match = OBJECT.fullmatch(text.strip())
    content: dict[str, Any] = {}
    with suppress(ValueError, RecursionError):
        content = json.loads(f"{{{match[1]}}}", parse_int=str, parse_float=str) if match else {}
    value = content.get("answer", next(iter(content.values())) if len(content) == 1 else None)
    return value if isinstance(value, str) else None
