"""`--save_trajectories`: the first samples of each step, with the numbers of each of their tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.track.base import Logger
from lightrft.track.samples import Sample
from lightrft.track.step_files import remove_after, write_whole
from lightrft.types import Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Trajectories(Logger):
    """`<folder>/step_<step>.jsonl`, one line per sample; `<folder>/images/<prompt>_<number>.png`, once per prompt."""

    def __init__(self, folder: Path, resumed: int, tokenizer: PreTrainedTokenizerBase) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_after(folder, resumed)
        self._folder, self._tokenizer = folder, tokenizer

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        entries = [{"step": step, **self._sample(s), **_finite(dict(s.per_token))} for s in samples]
        lines = [json.dumps(entry, default=str) + "\n" for entry in entries]
        write_whole(self._folder / f"step_{step:06d}.jsonl", "".join(lines))

    def _sample(self, sample: Sample) -> dict[str, Any]:
        rollout = sample.rollout
        prompt, reward = rollout.prompt, rollout.reward
        return {
            "prompt_id": prompt.id,
            "where": prompt.where,
            "source": prompt.source,
            "group": rollout.group,
            "messages": list(prompt.messages),
            **({"images": self._saved(prompt.id, sample.pictures)} if sample.pictures else {}),
            "reference": prompt.reference,
            "response": rollout.response,
            "finish_reason": rollout.finish_reason,
            "reward": _finite({"total": reward.total, "parts": dict(reward.parts)}) if reward else None,
            "error": reward.error if reward else None,
            "policy_version": rollout.policy_version,
            "tokens": self._tokenizer.batch_decode([[token] for token in rollout.response_ids]),
            "response_ids": list(rollout.response_ids),
            "rollout_logprobs": _finite(list(rollout.rollout_logprobs)),
        }

    def _saved(self, prompt: str, pictures: Sequence[bytes]) -> list[str]:
        """Their files, from `folder` on. A prompt shows the same in every step, so what is there already stays."""
        names = [f"images/{prompt}_{number}.png" for number in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            path = self._folder / name
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                write_whole(path, picture)
        return names


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
