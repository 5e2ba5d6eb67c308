"""The step of one token on a GPU: recorded once as a CUDA graph, and replayed.

A small model's step is a thousand kernels of a few microseconds each, and starting them takes longer than they do. A
graph starts all of them at once, but always with the same shapes and addresses: so the new token's column is a number
in the device's memory, and attention looks at a whole block of columns under a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.errors import warn

if TYPE_CHECKING:
    from lightrft.rollouts.engines.local.past import Past

BLOCK = 256  # columns by which what attention looks at grows; each block is recorded anew
LARGEST_SHARE = 0.05  # of the largest logit: rounding in bfloat16 makes 0.01


class Replay:
    """Steps of the rows of `past`, whose layers all are written in place.

    records: the steps are recorded; else they are computed one by one, as a test does where there is no GPU.
    """

    def __init__(self, past: Past, *, records: bool) -> None:
        self.past, self.records, self.trusted = past, records, False
        rows, device = len(past.starts), past.device
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.starts = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.origins = torch.zeros_like(self.starts)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.graphs: dict[int, tuple[Any, Tensor]] = {}  # by the columns looked at

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [rows] to the logits [rows, V] after them, which the next step overwrites. It does not wait for the
        device."""
        seen = min(-(-(self.past.end + 1) // BLOCK) * BLOCK, self.past.capacity)
        self.tokens.copy_(tokens)
        self.starts.copy_(self.past.columns)
        self.origins.copy_(self.past.origins)
        self.column.fill_(self.past.end)
        if not self.records:
            return self._step(seen)
        if seen not in self.graphs:
            self.graphs[seen] = self._record(seen)
        graph, logits = self.graphs[seen]
        graph.replay()
        return logits

    def compare(self, logits: Tensor, expected: Tensor) -> None:
        compare(logits, expected, LARGEST_SHARE)
        self.trusted = True

    def refuse(self, error: Exception) -> None:
        """The steps of this kind of model are started kernel by kernel from now on."""
        _refused.add(type(self.past.model))
        tell(self.past, "could not be recorded as a CUDA graph", error)

    def _step(self, seen: int) -> Tensor:
        past, columns = self.past, torch.arange(seen, device=self.column.device)
        assert past.layers is not None
        mask = (columns >= self.starts) & (columns <= self.column)
        for layer in past.layers:
            layer.fixed = (self.column, seen)
        try:
            found = past.model(
                input_ids=self.tokens[:, None],
                attention_mask=mask[:, None, None],
                position_ids=self.column - self.origins,
                use_cache=True,
                **{past.parameter: past.cache},
            )
        finally:
            for layer in past.layers:
                layer.fixed = None
        return found.logits[:, -1]

    def _record(self, seen: int) -> tuple[Any, Tensor]:
        """What is computed to warm up writes the same keys into the same column as the replay does."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._step(seen)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._step(seen)
        return graph, logits


def compare(logits: Tensor, expected: Tensor, share: float) -> None:
    """Raises where they differ by more than rounding, `share` of the largest: a model may read positions or masks in a
    way of its own. What is not finite has to be so, alike, in both."""
    logits, expected = logits.float(), expected.float()
    most = share * float(expected.nan_to_num(0, 0, 0).abs().max())
    off = ~torch.isclose(logits, expected, rtol=0, atol=most, equal_nan=True)
    if bool(off.any()):
        raise RuntimeError(f"its logits were off by {float((logits - expected)[off].abs().max()):.2g}")


def replay_of(past: Past) -> Replay | None:
    """Where it can gain: on an NVIDIA GPU, with a cache that is written in place, and attention that takes a mask of
    booleans as it is."""
    model = past.model
    plain = past.layers is not None and getattr(model.config, "_attn_implementation", None) == "sdpa"
    return Replay(past, records=True) if plain and past.device.type == "cuda" and type(model) not in _refused else None


_refused: set[type] = set()  # kinds of models that could not be recorded


def tell(past: Past, what: str, error: Exception) -> None:
    name, first = type(past.model).__name__, (str(error).strip() or type(error).__name__).splitlines()[0]
    warn(f"the local engine is slower: a step of {name} {what} ({first})")
