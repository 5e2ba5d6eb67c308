"""What flows through the house: prompts -> rollouts -> rewards -> batch.

Frozen dataclasses: a stage returns a replaced copy and never edits what it was given. Tensors are named for type
checkers only, so reward functions can import this module without torch.

Sequence alignment is the same everywhere: arrays are `[B, T]` over prompt *and* response, right-padded;
`logprobs[b, t]` is the log-probability of token `t` given the tokens before it; `response_mask` is 1 on tokens that
the policy sampled and 0 on the prompt and the padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Prompt:
    """One row of the data. `position` is its place in the endless prompt stream, so it is unique within a run.

    columns: all of the row's but the prompt itself. conversational: the row held chat messages, not a text.
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
    opening: str = ""  # tags at its end with which it begins the response, such as <think>


@dataclass(frozen=True)
class Request:
    """What an engine is asked for: `len(seeds)` samples of one prompt, each from its own seed."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def n(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True)
class Generation:
    """One sampled response; `logprobs` are of the temperature-scaled, unfiltered distribution."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str  # "stop" or "length"


@dataclass(frozen=True)
class Reward:
    """`total` is the weighted sum of `parts`; with an `error` the sample is invalid and is not trained on.

    `parts` are unweighted, in the order of --reward_fn, and only those that apply to the sample.
    """

    total: float
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Rollout:
    """One response to one prompt with all that is known of it. `group` is shared by the samples of one prompt."""

    prompt: Prompt
    group: int
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    response: str
    response_mask: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    finish_reason: str
    policy_version: int
    mm_inputs: Mapping[str, Any] = field(default_factory=dict)
    reward: Reward | None = None
    stop_text: str = ""  # the end of `response`, from the --stop text on that ended it


UNFILLED: Any = None
FILLED_BY = {
    "old_logprobs": "update/score.py, unless the on-policy short cut applies",
    "ref_logprobs": "update/score.py, when the KL coefficient is above 0",
    "entropy": "update/score.py, when --high_entropy_token_ratio is above 0",
    "selected": "update/loss.py, when --high_entropy_token_ratio is above 0",
    "group_tokens": "update/step.py, for the rows of one optimizer step",
    "values": "update/score.py, where there is a critic (estimator gae)",
    "advantages": "the estimator's advantage function",
    "returns": "the advantage function of a critic's estimator (gae)",
}


@dataclass(frozen=True)
class Batch:
    """The rollout step as tensors; see the module's note for the alignment.

    input_ids, attention_mask, response_mask [B, T] long; *_logprobs, values, advantages, returns [B, T] float32;
    rewards [B] float64 (NaN = invalid sample); group, prompt_lengths [B] long; truncated [B] bool; group_tokens [B]
    float64, the trained tokens of the row's whole group. Rows of a group have one prompt.
    Reading a field that no stage has filled raises, so none of them is ever None for a reader.
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    rollout_logprobs: Tensor
    rewards: Tensor
    group: Tensor
    prompt_lengths: Tensor
    truncated: Tensor
    temperature: float = 1.0
    old_logprobs: Tensor = UNFILLED
    ref_logprobs: Tensor = UNFILLED
    entropy: Tensor = UNFILLED
    selected: Tensor = UNFILLED
    group_tokens: Tensor = UNFILLED
    values: Tensor = UNFILLED
    advantages: Tensor = UNFILLED
    returns: Tensor = UNFILLED
    mm_inputs: Sequence[Mapping[str, Tensor]] = ()

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if value is None and name in FILLED_BY:
            raise ValueError(f"Batch.{name} is empty: it is filled by {FILLED_BY[name]}")
        return value

    def has(self, name: str) -> bool:
        return object.__getattribute__(self, name) is not None

    @property
    def first_tokens(self) -> Tensor:
        """[B, T] bool: the first token of each response."""
        place = self.attention_mask.cumsum(-1) - 1
        return (place == self.prompt_lengths[:, None]) & (self.attention_mask == 1)

    def filled(self, **changes: Any) -> Batch:
        """A copy with `changes`; `dataclasses.replace` would trip over the fields that are still empty."""
        kept = {entry.name: object.__getattribute__(self, entry.name) for entry in fields(self)}
        return Batch(**{**kept, **changes})

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) for name, value in self._tensors().items()}
        return self.filled(**moved)

    def _tensors(self) -> dict[str, Tensor]:
        kept = {entry.name: object.__getattribute__(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in kept.items() if hasattr(value, "dim")}

    def select(self, rows: Sequence[int]) -> Batch:
        """The rows in the given order, trimmed to the longest of them."""
        index = self.input_ids.new_tensor(list(rows))
        width = int(self.attention_mask[index].sum(-1).max()) if len(rows) else 0
        changed: dict[str, Any] = {}
        for name, value in self._tensors().items():
            changed[name] = value[index][:, :width] if value.dim() == 2 else value[index]
        if self.mm_inputs:
            changed["mm_inputs"] = tuple(self.mm_inputs[row] for row in rows)
        return self.filled(**changed)
