"""`--save_trajectories`: the first samples of each step, with the numbers of each of their tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.batch import Batch
from lightrft.track.base import Logger
from lightrft.track.step_files import remove_after, write_whole
from lightrft.types import Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PER_TOKEN = ("advantages", "old_logprobs", "ref_logprobs", "values", "returns")  # of the batch, where they are filled


class Trajectories(Logger):
    """`<folder>/step_<step>.jsonl`, one line per sample; at most `count` of a step, in the order of the rollouts."""

    def __init__(self, folder: Path, resumed: int, count: int, tokenizer: PreTrainedTokenizerBase) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_after(folder, resumed)
        self._folder, self._count, self._tokenizer = folder, count, tokenizer

    def rollouts(self, rollouts: Sequence[Rollout], batch: Batch, step: int) -> None:
        chosen = rollouts[: self._count]
        columns = {name: getattr(batch, name)[: len(chosen)].tolist() for name in PER_TOKEN if batch.has(name)}
        lines = []
        for row, rollout in enumerate(chosen):
            response = slice(len(rollout.prompt_ids), len(rollout.prompt_ids) + len(rollout.response_ids))
            per_token = {name: column[row][response] for name, column in columns.items()}
            lines.append(json.dumps({"step": step, **self._sample(rollout), **_finite(per_token)}, default=str) + "\n")
        write_whole(self._folder / f"step_{step:06d}.jsonl", "".join(lines))

    def _sample(self, rollout: Rollout) -> dict[str, Any]:
        prompt, reward = rollout.prompt, rollout.reward
        return {
            "prompt_id": prompt.id,
            "source": prompt.source,
            "group": rollout.group,
            "messages": list(prompt.messages),
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


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
