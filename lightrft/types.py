"""What flows through the house: prompts -> rollouts -> rewards (and then batch.py).

Frozen dataclasses: a stage returns a replaced copy and never edits what it was given. There are no tensors here, so
reward functions can import this module without torch.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """One row of the data. `position` is its place in the endless prompt stream, so it is unique within a run.

    columns: all of the row's but the prompt itself, of its media the paths. conversational: the row held chat messages,
    not a text. images, videos: references as they stood in the row (prompts/media/references.py), nothing decoded.
    In a prompt that has some every message's content is a tuple of parts, {"type": "text", "text": ...} and, one for
    each reference in their order, {"type": "image"} or {"type": "video"}; else it is a text.
    """

    id: str
    messages: tuple[Mapping[str, Any], ...]
    reference: Any = None
    source: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()
    token_ids: tuple[int, ...] = ()
    position: int = -1
    where: str = ""  # file:line, for messages to the user
    origin: int = 0  # which of the flag's sources it was read from
    conversational: bool = False
    folder: str = ""  # where relative paths of its media begin
    opening: str = ""  # tags at its end with which it begins the response, such as <think>

    @property
    def has_media(self) -> bool:
        return bool(self.images or self.videos)


@dataclass(frozen=True)
class Media:
    """What a prompt's references name, decoded: one entry for each part of its messages, in their order.

    images: PIL images of mode RGB. videos: uint8 arrays [frames, height, width, 3]. video_fps: the frames a second of
    each video as it stands here; --fps of what has no times, such as a folder of frames and a volume.
    slices: for each image reference, how many of `images` it gave: 1, and of a volume all its slices.
    """

    images: tuple[Any, ...] = ()
    videos: tuple[Any, ...] = ()
    video_fps: tuple[float | None, ...] = ()
    slices: tuple[int, ...] = ()


@dataclass(frozen=True)
class MediaInputs:
    """What a model takes of the images and videos of one prompt, beside its token ids; shared by its samples.

    features: tensors under the names that the processor gives them, which are joined along their first dimension over
    the prompts of a batch. per_token: integers [T], one of each token of the prompt, 0 of all others. positions [A, T]:
    of the prompt's tokens on each axis, as the model counts them; None where they are 0, 1, 2 …
    """

    features: Mapping[str, Tensor]
    per_token: Mapping[str, Tensor] = field(default_factory=dict)
    positions: Tensor | None = None


@dataclass(frozen=True)
class Request:
    """What an engine is asked for: `len(seeds)` samples of one prompt, each from its own seed.

    prompt_ids: as the model reads them, with one placeholder for each feature of an image. mm_inputs: what stands
    there. media: the images and videos themselves, for an engine with a processor of its own, which writes the
    placeholders into `bare_ids`. where: file:line of its prompt, for messages to the user. opening: see `Prompt`.
    """

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    mm_inputs: MediaInputs | None = None
    media: Media | None = None
    bare_ids: tuple[int, ...] = ()
    where: str = ""
    opening: str = ""

    @property
    def n(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True)
class SamplingMask:
    """What the filters of sampling (top_k, top_p, min_p) left of the vocabulary for each token of a response.

    sizes: of each token's set; 0 = nothing was left out. ids: the sets, one after another, ascending in each. Both are
    arrays of C ints: 4 bytes a number, also on the way to another rank.
    """

    sizes: array[int]
    ids: array[int]


@dataclass(frozen=True)
class Generation:
    """One sampled response. `logprobs` are of the temperature-scaled distribution: of all of it, or with a
    `sampling_mask` of what the mask leaves, which is what the token was drawn from."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str  # "stop" or "length"
    sampling_mask: SamplingMask | None = None


@dataclass(frozen=True)
class Reward:
    """`total` is the weighted sum of `parts`; with an `error` the sample is invalid and is not trained on.

    `parts` are unweighted, in the order of --reward_fn, and only those that apply to the sample.
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What all ranks are told of a rollout, wherever it is; a `Rollout` has the same under the same names.

    length: tokens of the response.
    """

    reward: Reward | None
    length: int
    finish_reason: str


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt with all that is known of it; `rollout_logprobs` and `sampling_mask` as in its
    `Generation`.

    `group` is shared by the samples of one prompt, which count from 0 in `sample`.
    """

    prompt: Prompt
    group: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    response: str
    response_mask: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    finish_reason: str
    policy_version: int
    mm_inputs: MediaInputs | None = None
    reward: Reward | None = None
    sample: int = 0
    stop_text: str = ""  # the end of `response`, from the --stop text on that ended it
    sampling_mask: SamplingMask | None = None

    @property
    def length(self) -> int:
        return len(self.response_ids)

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.reward, self.length, self.finish_reason)

    @property
    def valid_reward(self) -> float:
        return valid_total(self.reward)


def valid_total(reward: Reward | None) -> float:
    """The reward's total; NaN of a sample that is invalid or was not scored."""
    return math.nan if reward is None or reward.error else reward.total
