"""Rules that judge a response by its text alone; `--reward_fn <name>`. Each raises where it cannot judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightrft.errors import Refused, error_text
from lightrft.ranks.pulse import PULSE
from lightrft.rewards.answers.extraction import answer_of, has_tags
from lightrft.rewards.answers.references import (
    BadReference,
    mathematics_of,
    number_in,
    number_of,
    objection,
    spellings,
    text_of,
)
from lightrft.rewards.base import MOST_OF_AN_ERROR, checked, invalid
from lightrft.rewards.gym_verifier import from_gym, reasoning_gym_verifier
from lightrft.rewards.sandbox.process import Unjudged, sandbox
from lightrft.rewards.volumes import iou, json_answer, peak_slice, truth_of, tumor_ratio, video_keyword
from lightrft.types import Prompt, Reward, Rollout

FORMAT = re.compile(r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*", re.DOTALL)


def last_number(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """1.0 if the last number of the response's answer equals that of the reference exactly, else 0.0.

    Of an answer with a box, it is the last number in the box.
    """
    return float(number_in(answer_of(response, rollout)) == number_of(reference))


def exact(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """1.0 if the response's answer is the same text as the reference, white space around them aside.

    With or without the --stop text that ended it. A reference with tags is compared with the whole response.
    """
    expected = spellings(reference)
    whole = replace(rollout, stop_text="") if rollout else None
    texts = {answer_of(response, rollout), answer_of(response, whole)}
    if any(map(has_tags, expected)):
        texts.add(response.strip())
    return float(not expected.isdisjoint(texts))


def math_answer(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    r"""1.0 if the response's answer equals the reference as mathematics (see `math_answers.judge`), else 0.0."""
    return _as_mathematics(answer_of(response, rollout), reference, boxed_only=False)


def boxed_answer(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    r"""As `math_answer`, but only what stands in the last `\boxed{}` counts: without one the response is wrong."""
    return _as_mathematics(answer_of(response, rollout), reference, boxed_only=True)


def _as_mathematics(answer: str, reference: Any, *, boxed_only: bool) -> float:
    judge = sandbox("lightrft.rewards.answers.math_answers")
    return judge.ask("judge", answer, text_of(reference), boxed_only, what="comparing the answer")


def well_formed(response: str, reference: Any = None, rollout: Rollout | None = None) -> float:
    """1.0 if the response is one `<think>…</think>` block and then one `<answer>…</answer>` block, nothing else.

    Tags with which the prompt begins the response are the response's. Where the prompt ends with a closed block, which
    may be a template's or only speak of the tags, both ways count.
    """
    opening = rollout.prompt.opening if rollout else ""
    whole = _is_well_formed(opening + response)
    return float(whole or ("</" in opening and _is_well_formed(response)))


def _is_well_formed(text: str) -> bool:
    once = all(text.count(tag) == 1 for tag in ("<think>", "</think>", "<answer>", "</answer>"))
    return once and FORMAT.fullmatch(text) is not None


def _judges_all(prompt: Prompt) -> str | None:
    return None


def _to_reference(read: Callable[[Any], object]) -> Callable[[Prompt], str | None]:
    return lambda prompt: _with_columns(objection(read, prompt.reference), prompt)


def _with_columns(reason: str | None, prompt: Prompt) -> str | None:
    """Of a row without a reference, the columns of which one may be it."""
    if reason is None or prompt.reference is not None:
        return reason
    return f"{reason}; columns there: {', '.join(prompt.columns) or 'none but the prompt'}"


def _to_source(prompt: Prompt) -> str | None:
    return None if from_gym(prompt) else "the row is from elsewhere"


@dataclass(frozen=True)
class Rule:
    """objection: why the rule can never judge a prompt, from the prompt alone. needs: what works.

    packages: imported when the rule first judges. install: their name for pip. weight: where --reward_weights has none.
    """

    judge: Callable[[str, Any, Rollout], float]
    needs: str = ""
    objection: Callable[[Prompt], str | None] = _judges_all
    packages: tuple[str, ...] = ()
    install: str = ""
    weight: float = 1.0


COLUMN = "(--label_key names its column)"
MATHEMATICS = (f"a reference that is mathematics, a number or a few words {COLUMN}", _to_reference(mathematics_of))
MATH_VERIFY = (("math_verify", "antlr4"), "math-verify[antlr4_13_2]")
RULES = {
    "last_number": Rule(last_number, f"a reference with a number {COLUMN}", _to_reference(number_of)),
    "exact": Rule(exact, f"a reference that is a text or a number {COLUMN}", _to_reference(text_of)),
    "math": Rule(math_answer, *MATHEMATICS, *MATH_VERIFY),
    "boxed": Rule(boxed_answer, *MATHEMATICS, *MATH_VERIFY),
    "format": Rule(well_formed),
    "reasoning_gym": Rule(reasoning_gym_verifier, "--prompt_data reasoning_gym:<task>", _to_source),
}
FINDING = ("a reference with bbox_3d, peak_slice and tumor_ratio " + COLUMN, _to_reference(truth_of))
# Rules that are named together, by one name, and are parts of the reward each under its own. The first of them decides
# what is right in an evaluation.
GROUPS = {
    "volume_localisation": {
        "iou": Rule(iou, *FINDING),
        "peak_slice": Rule(peak_slice, *FINDING),
        "tumor_ratio": Rule(tumor_ratio, *FINDING),
        "thinking_format": Rule(well_formed, weight=0.5),
        "video_keyword": Rule(video_keyword, weight=0.5),
        "format": Rule(json_answer, weight=0.5),
    }
}


class RuleReward:
    """A rule of `RULES` or of the group named, as a reward source; one that raises makes that sample invalid."""

    def __init__(self, name: str, group: str | None = None) -> None:
        self.name, self._flag = name, f"--reward_fn {group or name}"
        self._rule = GROUPS[group][name] if group else RULES[name]
        self.weight = self._rule.weight

    def objection(self, prompt: Prompt) -> str | None:
        """Why no response to this prompt can ever be judged."""
        reason = self._rule.objection(prompt)
        return None if reason is None else f"{self._flag} needs {self._rule.needs}: {reason}"

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises `Refused` if none of these prompts has what the rule needs."""
        objection = self._rule.objection
        if prompts and all(map(objection, prompts)):
            first = f"{prompts[0].where or 'the first'}: {objection(prompts[0])}"
            none = f"none of the {len(prompts)} prompts has it ({first})"
            raise Refused(f"{self._flag} needs {self._rule.needs}, and {none}")

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return [self._one(rollout) for rollout in rollouts]

    def _one(self, rollout: Rollout) -> Reward:
        PULSE.beat()
        try:
            return checked(float(self._rule.judge(rollout.response, rollout.prompt.reference, rollout)))
        except (Unjudged, BadReference) as reason:
            return invalid(str(reason))
        except Exception as error:  # verifiers are other people's code
            return invalid(error_text(error, MOST_OF_AN_ERROR))
