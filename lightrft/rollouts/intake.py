"""Prompts on their way to an engine: which of them can be used, whose they are, and who reads their images when."""

from __future__ import annotations

from collections.abc import Sequence

from lightrft.errors import RunFailed, warn
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.sampler import PromptSampler
from lightrft.ranks.base import Ranks
from lightrft.ranks.together import together
from lightrft.types import Prompt


class Intake:
    """ranks: of all processes. skips: whether a prompt whose images cannot be read is left out; else it ends the run,
    when it is asked for. left_out: how many were.
    """

    def __init__(self, encoder: Encoder, ranks: Ranks, *, skips: bool) -> None:
        self.encoder, self.ranks, self.skips, self.left_out = encoder, ranks, skips, 0
        self.told: set[str] = set()

    @property
    def sees(self) -> bool:
        return self.encoder.vision is not None

    def share(self, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """Those that this rank's engine answers."""
        return prompts[self.ranks.rank :: self.ranks.size]

    def take(self, stream: PromptSampler, count: int) -> list[Prompt]:
        """The next `count` prompts of the stream, without those that are left out, which are the same on all ranks."""
        good, barren = self._usable(stream.take(count)), 0
        while missing := count - len(good):
            more = self._usable(stream.take(missing))
            good, barren = good + more, 0 if more else barren + missing
            if barren > len(stream):
                raise RunFailed(f"none of the last {barren} prompts can be used; mend their images")
        return good

    def read_ahead(self, taken: Sequence[Prompt], stream: PromptSampler, count: int) -> int:
        """Begins to read this rank's share of the next `count` prompts, and holds no other but those `taken`; of how
        many."""
        ahead = self.share(stream.upcoming(count))
        self.encoder.reader.keep([*self.share(taken), *ahead])
        return self.encoder.reader.begin(ahead)

    def readable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Of this rank's own those that are not left out."""
        return [prompt for prompt in prompts if not self.skips or self._fault_of(prompt) is None]

    def _usable(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Where they may be left out every rank reads its share of them."""
        if not self.skips:
            return list(prompts)
        with together(self.ranks):
            bad = [prompt.position for prompt in self.share(prompts) if self._fault_of(prompt) is not None]
        everyones = set(self.ranks.gather(bad))
        self.left_out += len(everyones)
        return [prompt for prompt in prompts if prompt.position not in everyones]

    def _fault_of(self, prompt: Prompt) -> str | None:
        fault = self.encoder.reader.fault_of(prompt)
        if fault is not None and fault not in self.told:
            self.told.add(fault)
            warn(f"{fault}; it is left out")
        return fault
