"""Requests to the in-process engine, and what the library generates for them."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.types import Request

QUESTIONS = ["3+5=", "9+9=", "10+1=2+2=", "7", "2+2=4+4=8+8=1", "1+1="]
GREEDY, SAMPLED = Sampling(12, temperature=0.0), Sampling(12, temperature=0.8)


def engine_of(model, tokenizer=None, end_ids=(2,)):
    return LocalEngine(lambda: nullcontext(model), tokenizer, end_ids)


def generate(model, requests, sampling, at_once=4, **engine):
    return engine_of(model, **engine).generate(requests, sampling, at_once=at_once)


def requests_of(prompts, n=1):
    return [Request(tuple(ids), tuple(range(100 * i, 100 * i + n))) for i, ids in enumerate(prompts)]


def hugging_face(model, ids, max_new_tokens, end_id=2):
    """One prompt at a time, so that no padding can matter."""
    found = model.generate(
        torch.tensor([ids]), max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=end_id, pad_token_id=0
    )
    return tuple(found[0, len(ids) :].tolist())


def prompts_of_lengths(lengths):
    generator = torch.Generator().manual_seed(11)
    return [tuple(torch.randint(3, 61, (n,), generator=generator).tolist()) for n in lengths]
