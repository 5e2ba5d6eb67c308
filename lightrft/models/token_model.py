"""A prepared model that scores the tokens of a batch: the only place where the trainer calls a model's forward.

The head runs on the positions that predict a trained token and on no other; over a vocabulary of 50k it is a large
share of the work. How rows are laid out, and why no padding mask is needed, stands in models/packing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.models.foreseen import Foreseen
from lightrft.models.fused_head import fused_logprobs, logits_held
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logprob import masked_logits, token_logprobs
from lightrft.models.output_head import Head, head_gives, head_on
from lightrft.models.packing import Cost, Layout, lay_out
from lightrft.ranks.pulse import PULSE
from lightrft.strategy.base import Handle

if TYPE_CHECKING:
    from lightrft.batch import Batch
    from lightrft.ranks.sequences import SequenceRanks
    from lightrft.sampling_masks import TokenSets
    from lightrft.types import Request


@dataclass(frozen=True)
class Scores:
    """logprobs and entropy [B, T] float32 (float64 of a float64 model), both 0 where the response mask is 0.

    tokens: positions that the model was run on, padding and prompts included. logits: of these, the most that one array
    held.
    """

    logprobs: Tensor
    entropy: Tensor | None = None
    tokens: int = 0
    logits: int = 0


Answer = Callable[[Head, Tensor, Layout], Tensor]


@dataclass(frozen=True)
class KnownLoss:
    """What will be made of the scores. by_row: a token's slope follows from those of its row, and not from its own."""

    of: Callable[[Scores], Tensor]
    by_row: bool = False


@dataclass(frozen=True)
class PreparedModel:
    """What running a model over a batch takes, and nobody else asks for.

    sharing: the model's costs where the samples of a group may share their prompt's computation, which is done where
    it pays; None where they may not. sequence_ranks: the processes that hold the same rows and run a part of each
    (models/sequence_parallel.py); None where this one runs whole rows. blank: a prompt with an image that is run along
    with rows that have none, where other processes may have some: all of them run the same parts of a model. packs: all
    samples of a batch make one row, without padding. at_the_start: the model is run as it was when the run began, which
    its adapters know.
    """

    handle: Handle
    sharing: Cost | None = None
    sequence_ranks: SequenceRanks | None = None
    blank: Request | None = None
    packs: bool = False
    at_the_start: bool = field(default=False, kw_only=True)

    @property
    def shares_prompts(self) -> bool:
        return self.sharing is not None

    @property
    def parts(self) -> int:
        """Of a row, each run by another process."""
        return 1 if self.sequence_ranks is None else self.sequence_ranks.size

    def _outputs(self, batch: Batch, answer: Answer | None = None) -> tuple[Tensor, Layout]:
        """The head's output for each trained token that is predicted here, [N, V] in row-major order; or what `answer`
        gives in its place.

        A batch with no trained token still runs the model, on its first column (sharded models need every rank), and
        gives [0, V] with a graph.
        """
        PULSE.beat()
        ranks, more = self.sequence_ranks, dict[str, Any]()
        layout = lay_out(self._with_images(batch), self.sharing, self.parts, packs=self.packs)
        if ranks is not None:
            layout, more = layout.part(ranks.rank, ranks.size), {"sequence_ranks": ranks}
        model = self.handle.model
        computing = (
            nullcontext() if answer is None else head_gives(model, lambda head, hidden: answer(head, hidden, layout))
        )
        with self._adapters(), head_on(model, layout.select), computing:
            outputs = self.handle.module(**layout.told, **more, use_cache=False).logits
        return _precise(outputs), layout

    def _adapters(self) -> AbstractContextManager[None]:
        if not self.at_the_start:
            return nullcontext()
        assert self.handle.adapters is not None, "a model without adapters is not what it was"
        return self.handle.adapters.at_the_start()

    def _with_images(self, batch: Batch) -> Batch:
        if self.blank is None or batch.mm_inputs:
            return batch
        assert self.blank.mm_inputs is not None, "it has an image"
        return batch.and_prompt(self.blank.prompt_ids, self.blank.mm_inputs)

    def _scattered(self, values: Tensor, layout: Layout, batch: Batch) -> Tensor:
        """[N], one for each trained token that is predicted here, as [B, T] of all, 0 elsewhere."""
        if self.sequence_ranks is not None and layout.here is not None:
            values = self.sequence_ranks.total(values.new_zeros(len(layout.here)).masked_scatter(layout.here, values))
        trained = batch.response_mask.bool()
        return values.new_zeros(trained.shape).masked_scatter(trained, values)


@dataclass(frozen=True)
class TokenModel(PreparedModel):
    """The policy, and the reference: a causal language model.

    chunk: tokens whose logits are made at a time, by models/fused_head.py; None where all of them are.
    """

    chunk: int | None = None

    def logprobs(self, batch: Batch, *, entropy: str | None = None, loss: KnownLoss | None = None) -> Scores:
        """log softmax(logits / temperature)[token] at every trained token, in float32 or better; with sampling masks
        over what these leave.

        entropy: of the whole vocabulary: "value", "gradient" for one that can be trained on, or None. loss: where it is
        known a fused head has its gradients sooner.
        """
        made = self._whole(batch, entropy) if self.chunk is None else self._fused(batch, entropy, self.chunk, loss)
        return Scores(
            self._scattered(made.logprobs, made.layout, batch),
            None if made.entropy is None else self._scattered(made.entropy, made.layout, batch),
            made.layout.positions * self.parts,
            made.logits,
        )

    def _whole(self, batch: Batch, entropy: str | None) -> _Made:
        logits, layout = self._outputs(batch)
        tokens, sets = _tokens(batch, layout), _sets(batch, layout)
        return _Made(*token_logprobs(logits, tokens, batch.temperature, entropy, sets), layout, logits.numel())

    def _fused(self, batch: Batch, entropy: str | None, chunk: int, loss: KnownLoss | None) -> _Made:
        seen: list[int] = []

        def answer(head: Head, hidden: Tensor, layout: Layout) -> Tensor:
            blocks = Blocks(hidden, head.weight, head.bias, head.never, batch.temperature, chunk)
            foreseen = None if loss is None else self._foreseen(loss, layout, batch, trains=entropy == "gradient")
            seen.append(logits_held(blocks, foreseen))
            return fused_logprobs(blocks, _tokens(batch, layout), entropy, foreseen)

        outputs, layout = self._outputs(batch, answer)
        return _Made(outputs[:, 0], outputs[:, 1] if entropy else None, layout, seen[0])

    def _foreseen(self, loss: KnownLoss, layout: Layout, batch: Batch, *, trains: bool) -> Foreseen | None:
        """None where other processes have other tokens: all would have to ask alike."""
        if self.sequence_ranks is not None:
            return None

        def slopes(found: Tensor) -> Tensor:
            leaves = [each.clone().requires_grad_() for each in found.unbind(-1)]
            with torch.enable_grad():
                scores = [self._scattered(each, layout, batch) for each in leaves]
                total = loss.of(Scores(scores[0], scores[1] if len(scores) > 1 else None))
            return torch.stack(torch.autograd.grad(total, leaves[: 1 + trains]), -1)

        return Foreseen(slopes, batch.response_mask.sum(-1).int() if loss.by_row else None)

    def measured(self, batch: Batch, measure: Callable[[Tensor, Tensor], Sequence[Tensor]]) -> Tensor:
        """[K, B, T] of `measure(logits [N, V], tokens [N])`, which gives K times [N], for every trained token; with
        sampling masks a logit outside of them is -inf."""
        logits, layout = self._outputs(batch)
        tokens, sets = _tokens(batch, layout), _sets(batch, layout)
        logits = logits if sets is None else masked_logits(logits, sets)
        return torch.stack([self._scattered(values, layout, batch) for values in measure(logits, tokens)])


@dataclass(frozen=True)
class _Made:
    """Scores of the tokens that are predicted here, each [N]."""

    logprobs: Tensor
    entropy: Tensor | None
    layout: Layout
    logits: int


def _tokens(batch: Batch, layout: Layout) -> Tensor:
    """The trained tokens that are predicted here, [N]."""
    return layout.own(batch.input_ids[batch.response_mask.bool()])


def _sets(batch: Batch, layout: Layout) -> TokenSets | None:
    """What these were drawn from, where that is to be replayed."""
    if not batch.has("sampling_masks"):
        return None
    return batch.sampling_masks.at(layout.own(batch.response_mask.flatten().nonzero()[:, 0]))


class TokenCritic(PreparedModel):
    """The critic: a backbone with a value head, models/critic.py."""

    def values(self, batch: Batch) -> Tensor:
        """[B, T] float32: at token t the value of what stands before it, so read at position t - 1; 0 where masked."""
        outputs, layout = self._outputs(batch)
        return self._scattered(outputs[:, 0], layout, batch)


def _precise(outputs: Tensor) -> Tensor:
    """float32 or better: bfloat16 has three digits."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
