"""The samples of a rollout step that are shown: the first of all ranks, with the numbers of each of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lightrft.track.pictures import Read, pictures_of
from lightrft.types import Rollout

if TYPE_CHECKING:
    from lightrft.batch import Batch
    from lightrft.ranks.base import Ranks

PER_TOKEN = ("advantages", "old_logprobs", "ref_logprobs", "values", "returns")  # of the batch, where they are filled


@dataclass(frozen=True)
class Sample:
    """per_token: numbers of each token of the response, by their names in the batch. pictures: PNG files of what its
    prompt shows, the same objects for all samples of a prompt; the rollout itself holds no media.
    """

    rollout: Rollout
    per_token: Mapping[str, Sequence[float]]
    pictures: tuple[bytes, ...] = ()


def first_samples(
    rollouts: Sequence[Rollout], batch: Batch, count: int, ranks: Ranks, read: Read | None = None
) -> list[Sample]:
    """Of the first `count` rows of the index, whichever rank holds them; row i of `batch` is rollout i.

    read: a prompt's media, decoded; None for a model that sees none. A rank reads those of its own prompts, once.
    """
    if not count:
        return []
    own = [(int(row), int(batch.index.batch_row[row])) for row in batch.index.own if row < count]
    prompts = {rollouts[place].group: rollouts[place].prompt for _, place in own}
    pictures = {group: pictures_of(prompt, read) for group, prompt in prompts.items()}
    made = [(row, _sample(rollouts[place], batch, place, pictures[rollouts[place].group])) for row, place in own]
    return [sample for _, sample in sorted(ranks.gather(made), key=lambda entry: entry[0])]


def _sample(rollout: Rollout, batch: Batch, row: int, pictures: tuple[bytes, ...]) -> Sample:
    response = slice(len(rollout.prompt_ids), len(rollout.prompt_ids) + rollout.length)
    names = [name for name in PER_TOKEN if batch.has(name)]
    numbers = {name: getattr(batch, name)[row, response].tolist() for name in names}
    return Sample(_without_media(rollout), numbers, pictures)


def _without_media(rollout: Rollout) -> Rollout:
    """They are large, and go to another rank."""
    return replace(rollout, prompt=replace(rollout.prompt, images=(), videos=()), mm_inputs=None)


@dataclass(frozen=True)
class Shown:
    """What trackers with a page of their own write of a sample. reward: NaN where it is invalid."""

    prompt: str
    response: str
    reward: float
    parts: Mapping[str, float]


def shown_of(sample: Sample) -> Shown:
    rollout = sample.rollout
    turns = [f"{message['role']}: {_text(message['content'])}" for message in rollout.prompt.messages]
    parts = dict(rollout.reward.parts) if rollout.reward else {}
    return Shown("\n".join(turns), rollout.response, rollout.valid_reward, parts)


def _text(content: Any) -> str:
    """Of a message; media in it as <image> and <video>."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content)
