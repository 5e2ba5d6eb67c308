"""Rules that judge a response by its text alone; `--reward_fn <name>`. Each raises where it cannot judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightrft.rewards.answers import answer_of, last_box
from lightrft.rewards.base import checked, invalid, one_line
from lightrft.rewards.gym_verifier import from_gym, reasoning_gym_verifier
from lightrft.rewards.last_number import last_number_in
from lightrft.rewards.numbers import Number
from lightrft.rewards.sandbox import Unjudged, sandbox
from lightrft.types import Prompt, Reward, Rollout

FORMAT = re.compile(r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*", re.DOTALL)


def last_number(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """1.0 if the last number of the response's answer equals that of the reference exactly, else 0.0.

    Of an answer with a box, it is the last number in the box.
    """
    expected = _last_number(_text(reference))
    if expected is None:
        raise ValueError(f"the reference {reference!r} holds no number")
    return float(_last_number(answer_of(response)) == expected)


def _last_number(text: str) -> Number | None:
    box = last_box(text)
    return last_number_in(text if box is None else box)


def exact(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """1.0 if the response's answer and the reference are the same text, white space around them aside."""
    expected = _text(reference).strip()
    return float(expected in (answer_of(response), response.strip()))


def math_answer(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    r"""1.0 if the response's answer equals the reference as mathematics (see `math_answers.judge`), else 0.0."""
    return _as_mathematics(response, reference, boxed_only=False)


def boxed_answer(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    r"""As `math_answer`, but only what stands in the last `\boxed{}` counts: without one the response is wrong."""
    return _as_mathematics(response, reference, boxed_only=True)


def _as_mathematics(response: str, reference: Any, *, boxed_only: bool) -> float:
    judge = sandbox("lightrft.rewards.math_answers")
    return judge.ask("judge", answer_of(response), _text(reference), boxed_only, what="comparing the answer")


def well_formed(response: str, reference: Any = None, rollout: Rollout | None = None) -> float:
    """1.0 if the response is one `<think>…</think>` block and then one `<answer>…</answer>` block, nothing else.

    A chat template that writes `<think>` into the prompt leaves the response without it: it then never matches.
    """
    once = all(response.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return float(once and FORMAT.fullmatch(response) is not None)


def _text(reference: Any) -> str:
    if reference is None:
        raise ValueError("the row has no reference; --label_key names its column")
    if isinstance(reference, bool) or not isinstance(reference, (str, int, float)):
        raise TypeError(f"the reference is of type {type(reference).__name__}; a text or a number works")
    return str(reference)


def _has_reference(prompt: Prompt) -> bool:
    return prompt.reference is not None


def _has_number(prompt: Prompt) -> bool:
    try:
        return _last_number(_text(prompt.reference)) is not None
    except (ValueError, TypeError):
        return False


@dataclass(frozen=True)
class Rule:
    """`can_judge` tells from the prompt alone whether the rule can work; `needs` says what it looks for.

    `packages` are imported when it first judges; `install` is what pip calls them.
    """

    judge: Callable[[str, Any, Rollout], float]
    needs: str = ""
    can_judge: Callable[[Prompt], bool] = lambda prompt: True
    packages: tuple[str, ...] = ()
    install: str = ""


REFERENCE = "a reference (--label_key names its column)"
MATH_VERIFY = (("math_verify", "antlr4"), "math-verify[antlr4_13_2]")
RULES = {
    "last_number": Rule(last_number, "a reference with a number (--label_key names its column)", _has_number),
    "exact": Rule(exact, REFERENCE, _has_reference),
    "math": Rule(math_answer, REFERENCE, _has_reference, *MATH_VERIFY),
    "boxed": Rule(boxed_answer, REFERENCE, _has_reference, *MATH_VERIFY),
    "format": Rule(well_formed),
    "reasoning_gym": Rule(reasoning_gym_verifier, "--prompt_data reasoning_gym:<task>", from_gym),
}


class RuleReward:
    """A rule of `RULES` as a reward source; a rule that raises makes that one sample invalid."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._judge = RULES[name].judge

    def objection(self, prompt: Prompt) -> str | None:
        """Why no response to this prompt can ever be judged."""
        rule = RULES[self.name]
        return None if rule.can_judge(prompt) else f"--reward_fn {self.name} needs {rule.needs}, and the row has none"

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self._one(rollout) for rollout in rollouts]

    def _one(self, rollout: Rollout) -> Reward:
        try:
            return checked(float(self._judge(rollout.response, rollout.prompt.reference, rollout)))
        except Unjudged as reason:
            return invalid(str(reason))
        except Exception as error:  # verifiers are other people's code
            return invalid(one_line(error))
