"""Whether a model samples what its forward pass says: asked once, before anything is written.

A few tokens are sampled through the model's cache, from prompts of two lengths, several samples each, of which some end
early; then the whole rows go through the forward pass as it trains. Log-probabilities that differ by more than rounding
mean that the model does not use the cache, that padding changes what it computes, or that its tokens see later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightrft.errors import Refused, RunFailed, error_text
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.types import Generation, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RAGGED, EQUAL = (3, 8), (8, 8)  # tokens of the two prompts
SAMPLES, NEW_TOKENS = 3, 6
END_EVERY = 5  # each fifth token of the vocabulary ends a response, so that rows leave the batch
BOUNDS = {"fp32": 0.005, "bf16": 0.2, "fp16": 0.1}  # mean |difference| in nats; rounding makes 1e-5, .04 and .01


def needs_equal_lengths(
    borrow: Callable[[], AbstractContextManager[PreTrainedModel]], token_ids: Sequence[int], compute: str, name: str
) -> bool:
    """Whether only prompts of one length may share a batch. `Refused` where the model is sampled wrongly even then.

    token_ids: what the probe's prompts are made of; compute: the precision, which says how much is rounding.
    """
    with torch.no_grad(), borrow() as model:
        fault = _fault(model, token_ids, RAGGED, BOUNDS[compute])
        if fault is not None:
            fault = _fault(model, token_ids, EQUAL, BOUNDS[compute])
            if fault is None:
                return True
            kind = getattr(model.config, "model_type", None) or type(model).__name__
            raise Refused(f"--pretrain {name}: the local engine cannot sample from a {kind} model: {fault}")
    return False


def _fault(model: Any, token_ids: Sequence[int], lengths: Sequence[int], bound: float) -> str | None:
    try:
        found = difference(model, token_ids, lengths)
    except (Refused, RunFailed, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a model's own code raises when it is not called as it wants to be
        return error_text(error, most=200)
    if not found > bound:  # NaN neither: a policy that is not finite is reported by the step that meets it
        return None
    return f"its tokens are {found:.2g} nats off its own forward pass on average, as if sampled without their past"


def difference(model: Any, token_ids: Sequence[int], lengths: Sequence[int]) -> float:
    """Mean |log-probability when sampled - by the forward pass| of all tokens; NaN where the model is not finite."""
    config = model.config.get_text_config()
    pad, vocabulary = getattr(config, "pad_token_id", None), range(config.vocab_size)
    known = [pad] if isinstance(pad, int) and pad in vocabulary else []  # some models count it as no token at all
    asked = [token_ids[0], *known, *token_ids[1:]]
    prompts = [tuple(islice(cycle(asked), length)) for length in lengths]
    if not bool(_logits(model, prompts).isfinite().all()):
        return float("nan")
    requests = [Request(ids, tuple(range(SAMPLES * i, SAMPLES * (i + 1)))) for i, ids in enumerate(prompts)]
    no_tokenizer: Any = None  # it is for stop texts alone
    engine = LocalEngine(lambda: nullcontext(model), no_tokenizer, vocabulary[::END_EVERY])
    made = engine.generate(requests, Sampling(NEW_TOKENS), at_once=len(requests))
    rows = [generation for group in made for generation in group]
    logits = _logits(model, [(*each.prompt_ids, *each.response_ids) for each in rows])
    off = [_off(each, row.log_softmax(-1)) for each, row in zip(rows, logits, strict=True)]
    return float(torch.cat(off).mean())


def _off(made: Generation, logp: Tensor) -> Tensor:
    """logp [T, V] of the whole row to |difference| [response tokens]."""
    start, ids = len(made.prompt_ids), logp.new_tensor(made.response_ids, dtype=torch.long)
    wanted = logp[start - 1 : start - 1 + len(ids)].gather(1, ids[:, None])[:, 0]
    return (wanted - logp.new_tensor(made.logprobs)).abs()


def _logits(model: Any, rows: Sequence[Sequence[int]]) -> Tensor:
    """[rows, T, V] float32, right-padded without a mask, as `models/packing.py` lays them out."""
    device = next(model.parameters()).device
    padded = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return model(input_ids=padded.to(device), use_cache=False).logits.float()
