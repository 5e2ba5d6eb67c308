"""What the trainer asks of an inference engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from lightrft.errors import RunFailed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightrft.types import Generation, Request


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0 is greedy; top_k -1, top_p 1 and min_p 0 are off.

    first_temperature: of the first token alone (FIRE, arXiv:2410.21236); its log-probability is reported at
    `temperature` all the same, since that is the policy which is trained.

    Filters apply in the order temperature, top_k, top_p, min_p, each on what the one before kept. They do not apply at
    temperature 0.

    returns_mask: with each response comes its `SamplingMask`, and its log-probabilities are of what the mask leaves. A
    first token at a temperature of its own is not masked: it was drawn from another distribution than the policy's.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    first_temperature: float | None = None
    returns_mask: bool = False

    @property
    def filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0

    @property
    def masks(self) -> bool:
        """Whether there is something to return as a mask."""
        return self.returns_mask and self.filtered and self.temperature > 0

    @property
    def stop_window(self) -> int:
        """The newest tokens among which a text of `stop` stands that the last of them has completed: a token is at
        least one byte."""
        return 1 + max((len(text.encode()) for text in self.stop), default=0)


class EngineFailed(RunFailed):
    """An engine died or cannot go on. A fresh one may: the step is tried once more on it."""


def check_room(engine: str, most: int, requests: Sequence[Request], sampling: Sampling) -> None:
    """`RunFailed` where a prompt and its response may be longer than the `most` tokens that `engine` was made for."""
    longest = max((len(request.prompt_ids) for request in requests), default=0)
    if longest + sampling.max_new_tokens > most:
        asked = f"a prompt of {longest} tokens and {sampling.max_new_tokens} new ones"
        raise RunFailed(f"{asked} are more than the {most} that {engine} was made for; raise --max_len")


class InferenceEngine(Protocol):
    """shares_weights: it samples from the training module itself, nothing has to be pushed; else `update_weights` gets
    every tensor in `dtype`. version: of the weights that it holds."""

    shares_weights: bool
    dtype: torch.dtype
    version: int

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, at_once: int, enough: int | None = None
    ) -> list[list[Generation]]:
        """One list per request, one generation per seed; a generation depends on its seed and prompt only.

        enough: with it the engine ends as soon as at least so many requests have all their generations; the others are
        given up, and their lists are empty.

        Log-probabilities are of the temperature-scaled distribution, as `Generation` says; at temperature 0 of the
        unscaled one.
        at_once: most requests (with all their samples) that are decoded together, where the engine asks for it.
        """
        ...

    def update_weights(self, params: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Whole tensors under their Hugging Face names, one at a time; a tied one under each of its names."""
        ...

    def fingerprints(self) -> Mapping[tuple[str, ...], int] | None:
        """Of each tensor that the engine holds, `fingerprint(tensor)` by the names that it was made of: an engine that
        fuses q, k and v has one for the three, which is the sum of theirs. None: it cannot tell."""
        ...

    def sleep(self, *, keep_weights: bool) -> None:
        """Gives its memory back. With `keep_weights` it has the same ones when it wakes; else who wakes it pushes new
        ones. A second sleep does nothing."""
        ...

    def wake(self, what: Literal["weights", "kv_cache"]) -> None:
        """Takes memory for it again. Like `sleep` it does nothing where that is so already."""
        ...

    def restart(self) -> None:
        """Puts a fresh engine, awake and without weights, in the place of one that failed."""
        ...

    def stats(self) -> dict[str, float]:
        """Counters since the last call. Who generated asks, and names what it was for."""
        ...

    def close(self) -> None: ...
