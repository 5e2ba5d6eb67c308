"""The log-probabilities of given tokens, and the entropy, from hidden states: the output head and its softmax in one.

No array of [tokens, vocabulary] is ever held. Logits are made block by block, some tokens by some of the vocabulary,
small enough to stay in a processor's cache, and are made again in the backward pass: one more product of matrices, in
place of many trips of large arrays through memory. Sums are taken in float32, or float64 of a float64 model.

With z = logits / temperature, p = softmax(z), H the entropy, and g, e the gradients of a token's log-probability and
entropy:  dz = g * (onehot - p) - e * p * (log p + H).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightrft.errors import Refused
from lightrft.models.logprob import LEAST
from lightrft.strategy.base import Handle

CELLS = 1 << 20  # logits of a block, 4 MiB: in a processor's cache
CELLS_OF_DEVICES = 1 << 25  # 128 MiB, where launches cost
NARROWEST = 256  # columns of a block: below it products of matrices are slow


@dataclass(frozen=True)
class Blocks:
    """The logits [N, V] of a head, `chunk` tokens at most at a time. weight [V, H], bias [V] or None.

    never: words whose logits are -inf.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    never: tuple[int, ...]
    temperature: float
    chunk: int

    @property
    def dtype(self) -> torch.dtype:
        """Of logits and sums."""
        return torch.promote_types(self.hidden.dtype, torch.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the largest block."""
        rows = min(self.chunk, max(len(self.hidden), 1))
        cells = CELLS if self.hidden.device.type == "cpu" else CELLS_OF_DEVICES
        return rows, min(max(cells // rows, NARROWEST), len(self.weight))

    def rows(self) -> Iterator[slice]:
        return _slices(len(self.hidden), self.shape[0])

    def columns(self) -> Iterator[slice]:
        return _slices(len(self.weight), self.shape[1])

    @property
    def cells(self) -> int:
        """Of the largest block: logits that are held at a time."""
        rows, columns = self.shape
        return rows * columns

    def space(self) -> Tensor:
        """For one block at a time."""
        return self.hidden.new_empty(self.cells, dtype=self.dtype)

    def logits(self, rows: slice, columns: slice, space: Tensor) -> Tensor:
        """Over the temperature, in `space`."""
        hidden, weight = self.hidden[rows], self.weight[columns]
        out = space[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        if out.dtype == hidden.dtype:
            torch.mm(hidden, weight.t(), out=out)
        else:
            out.copy_(torch.mm(hidden, weight.t()))
        if self.bias is not None:
            out += self.bias[columns]
        for word in self.never:
            if columns.start <= word < columns.stop:
                out[:, word - columns.start] = -torch.inf
        return out if self.temperature == 1.0 else out.div_(self.temperature)


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def fused_logprobs(blocks: Blocks, tokens: Tensor, entropy: str | None) -> Tensor:
    """[N, 1] log softmax(logits / temperature)[token], or with an entropy [N, 2], it beside them.

    tokens [N]. entropy: of the whole vocabulary: "value", "gradient" for one that can be trained on, or None.
    """
    b = blocks
    found = _Fused.apply(b.hidden, b.weight, b.bias, tokens, entropy, (b.never, b.temperature, b.chunk))
    return torch.stack([each for each in found if each is not None], dim=-1)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        kind: str | None,
        more: tuple[tuple[int, ...], float, int],
    ) -> tuple[Tensor, Tensor | None]:
        blocks = Blocks(hidden, weight, bias, *more)
        picked, lse, entropy = _sums(blocks, tokens, kind is not None)
        ctx.save_for_backward(hidden, weight, bias, tokens, lse, entropy)
        ctx.more, ctx.kind = more, kind
        if entropy is not None and kind != "gradient":
            ctx.mark_non_differentiable(entropy)
        return picked - lse, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, lse, entropy = ctx.saved_tensors
        blocks = Blocks(hidden, weight, bias, *ctx.more)
        slope = _Slope(tokens, lse, upstream[0] / blocks.temperature)
        if ctx.kind == "gradient":
            slope = _Slope(tokens, lse, slope.logprob, upstream[1] / blocks.temperature, entropy)
        return *_gradients(blocks, slope, ctx.needs_input_grad[:3]), None, None, None


def _sums(blocks: Blocks, tokens: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The token's logit, log sum exp, and the entropy, each [N]: columns by columns, by the largest logit so far."""
    count, space = len(tokens), blocks.space()
    picked, lse, entropy = (space.new_empty(count) for _ in range(3))
    for rows in blocks.rows():
        largest = space.new_full((rows.stop - rows.start,), torch.finfo(space.dtype).min / 2)
        mass, tilt = torch.zeros_like(largest), torch.zeros_like(largest)  # sums of w and w (z - largest), w = exp(..)
        for columns in blocks.columns():
            z = blocks.logits(rows, columns, space)
            own, places = _own(tokens[rows], columns)
            picked[rows][own] = z[own, places]
            before, largest = largest, torch.maximum(largest, z.amax(-1))
            shift = before - largest
            z -= largest[:, None]
            weights = z.exp() if with_entropy else z.exp_()
            if with_entropy:
                z.clamp_(min=LEAST)
                tilt = shift.exp() * (tilt + shift * mass) + torch.einsum("nv,nv->n", weights, z)
            mass = shift.exp() * mass + weights.sum(-1)
        lse[rows], entropy[rows] = largest + mass.log(), mass.log() - tilt / mass
    return picked, lse, entropy if with_entropy else None


def _own(tokens: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """The rows whose token lies in these columns, and where in them."""
    own = ((tokens >= columns.start) & (tokens < columns.stop)).nonzero()[:, 0]
    return own, tokens[own] - columns.start


@dataclass(frozen=True)
class _Slope:
    """tokens and lse [N]; logprob, entropy [N]: what a unit of each adds to the loss, over the temperature; values: of
    the entropy."""

    tokens: Tensor
    lse: Tensor
    logprob: Tensor
    entropy: Tensor | None = None
    values: Tensor | None = None

    def of_logits(self, z: Tensor, rows: slice, columns: slice) -> Tensor:
        """dz of a block, in its place."""
        g = self.logprob[rows]
        logp = z.sub_(self.lse[rows][:, None])
        if self.entropy is None or self.values is None:
            dz = logp.exp_().mul_(-g[:, None])
        else:
            e = self.entropy[rows]
            logp.clamp_(min=LEAST)
            weights = torch.addcmul((g + e * self.values[rows])[:, None], logp, e[:, None]).neg_()
            dz = logp.exp_().mul_(weights)
        own, places = _own(self.tokens[rows], columns)
        dz[own, places] += g[own]
        return dz


def _gradients(blocks: Blocks, slope: _Slope, needed: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
    """Of hidden, weight and bias, where they are needed."""
    space, dtype = blocks.space(), blocks.hidden.dtype
    hidden = torch.zeros_like(blocks.hidden, dtype=space.dtype) if needed[0] else None
    weight = torch.empty_like(blocks.weight) if needed[1] else None
    bias = torch.empty_like(blocks.bias) if needed[2] and blocks.bias is not None else None
    for columns in blocks.columns():
        width = columns.stop - columns.start
        own = space.new_zeros(width, blocks.weight.shape[1]) if weight is not None else None
        shift = space.new_zeros(width)
        for rows in blocks.rows():
            dz = slope.of_logits(blocks.logits(rows, columns, space), rows, columns)
            shift += dz.sum(0) if bias is not None else 0
            dz = dz.to(dtype)
            _add_product(None if hidden is None else hidden[rows], dz, blocks.weight[columns])
            _add_product(own, dz.t(), blocks.hidden[rows])
        if weight is not None and own is not None:
            weight[columns] = own
        if bias is not None:
            bias[columns] = shift
    return None if hidden is None else hidden.to(dtype), weight, bias


def _add_product(to: Tensor | None, left: Tensor, right: Tensor) -> None:
    if to is not None and to.dtype == left.dtype:
        to.addmm_(left, right)
    elif to is not None:
        to += left @ right


@dataclass(frozen=True)
class Head:
    """What an output head computes with, as long as it is being called. never: words whose logits become -inf."""

    weight: Tensor
    bias: Tensor | None
    never: tuple[int, ...]


@contextmanager
def head_gives(model: Any, answer: Callable[[Head, Tensor], Tensor]) -> Iterator[None]:
    """Lets the model's output head compute `answer(head, its input)` when it is called. Called it must be: sharded
    weights are gathered by hooks around that."""
    head = model.get_output_embeddings()
    before = {name: vars(head)[name] for name in ("forward", "never_written") if name in vars(head)}
    never = before.get("never_written", ())
    head.forward = lambda hidden: answer(Head(head.weight, head.bias, never), hidden)
    head.never_written = ()
    try:
        yield
    finally:
        del head.forward, head.never_written
        vars(head).update(before)


@torch.no_grad()
def check_head(handle: Handle, name: str) -> None:
    """Refuses a model whose head is not one matrix and a bias, or that does something to the logits that the head
    gives: scales or caps them. `name` is the flag and its value. All processes together."""
    head = handle.model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        raise _not_with(name, f"its output head is a {type(head).__name__}, not one matrix")
    given = torch.tensor([[[-70.0, 3.0, 900.0]]], device=head.weight.device)  # caps change the large, scales all
    with head_gives(handle.model, lambda _, hidden: given + 0 * hidden.sum().to(given)):
        logits = handle.module(input_ids=torch.zeros_like(given[..., 0], dtype=torch.long), use_cache=False).logits
    if not torch.equal(logits.to(given), given):
        raise _not_with(name, "it scales or caps the logits that its output head gives")


def _not_with(name: str, fault: str) -> Refused:
    return Refused(f"--fused_linear_logprob: {name}: {fault}; leave the flag out")
