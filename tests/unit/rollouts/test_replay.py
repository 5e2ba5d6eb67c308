"""The step with fixed shapes that a GPU records, computed here one by one, against the step as it is."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
import torch

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine, past, replay
from lightrft.rollouts.engines.local.replay import Replay
from lightrft.types import Request

LENGTHS = (3, 9, 1, 6, 9, 2, 5)


def sampled(model, device="cpu", sampling=None, at_once=2):
    generator = torch.Generator().manual_seed(11)
    prompts = [tuple(torch.randint(3, 61, (n,), generator=generator).tolist()) for n in LENGTHS]
    requests = [Request(ids, tuple(range(100 * i, 100 * i + 4))) for i, ids in enumerate(prompts)]
    engine = LocalEngine(lambda: nullcontext(model.to(device)), None, range(2, 9))
    found = engine.generate(requests, sampling or Sampling(30), at_once=at_once)
    return sum(found, [])


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert (one.response_ids, one.finish_reason) == (other.response_ids, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)  # float32, keys in another order of sums


@pytest.mark.parametrize("block", [4, 256])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_fixed_shapes_change_no_token(causal_model, monkeypatch, kind, block):
    """Rows end, others take their places, the columns seen grow block by block, and move to the front at the end."""
    model, seen = causal_model(kind), []

    class Watched(Replay):
        def _step(self, columns):
            seen.append(columns)
            return super()._step(columns)

    wanted = sampled(model)
    monkeypatch.setattr(replay, "BLOCK", block)
    monkeypatch.setattr(past, "replay_of", lambda rows: Watched(rows, records=False))
    same(sampled(model), wanted)
    assert len(seen) > 10 and len(set(seen)) > (2 if block == 4 else 0)


def refuses(self, columns):
    raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def misreads(self, columns):
    self.starts += 1
    return Replay._step(self, columns)


@pytest.mark.parametrize(
    ("step", "reason"),
    [(refuses, "operation not permitted when stream is capturing"), (misreads, r"its logits were off by \d.*")],
)
def test_a_model_that_cannot_be_recorded_is_started_kernel_by_kernel(causal_model, monkeypatch, capsys, step, reason):
    broken = type("Broken", (Replay,), {"_step": step})
    model = causal_model("gpt2")
    wanted = sampled(model)
    monkeypatch.setattr(replay, "_refused", set())
    monkeypatch.setattr(past, "replay_of", lambda rows: None if replay._refused else broken(rows, records=False))
    same(sampled(model), wanted)
    said = "warning: the local engine is slower: a step of GPT2LMHeadModel could not be recorded as a CUDA graph "
    assert re.fullmatch(re.escape(said) + rf"\({reason}\)\n", capsys.readouterr().err)


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("found", "expected", "off"),
    [
        ([10.4, 1.0, -INF, NAN], [10.0, 1.3, -INF, NAN], None),  # of the largest, 10, it is a twentieth
        ([10.0, 1.6, -INF, NAN], [10.0, 1.0, -INF, NAN], "0.6"),
        ([10.0, NAN], [10.0, 1.0], "nan"),
        ([10.0, 1.0], [10.0, NAN], "nan"),
        ([10.0, INF], [10.0, -INF], "inf"),
        ([10.0, -INF], [10.0, 1.0], "inf"),
        ([NAN, NAN], [NAN, NAN], None),
    ],
)
def test_logits_that_are_not_finite_in_one_way_alone_are_others(found, expected, off):
    with nullcontext() if off is None else pytest.raises(RuntimeError, match=f"^its logits were off by {off}$"):
        replay.compare(torch.tensor([found]), torch.tensor([expected]), 0.05)


def test_only_a_gpu_and_plain_attention_are_recorded(causal_model):
    for kind in ("llama", "gemma3"):
        with torch.no_grad():
            made = past.Past(past.Prompts(causal_model(kind), [(3, 4)], room=4), [0, 0])
        assert not isinstance(made.quick, Replay)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_a_gpu_samples_what_the_processor_samples(causal_model, kind):
    """In float32, recorded (llama, gpt2) and not (gemma3, with its windows)."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model = causal_model(kind)
    wanted = sampled(model)
    found = sampled(model, "cuda")
    model.to("cpu")
    off = [one for one, other in zip(found, wanted, strict=True) if one.response_ids != other.response_ids]
    assert len(off) <= 1, "rounding may tip one token of them all over"
    assert not replay._refused


@pytest.mark.gpu
def test_no_token_waits_for_the_gpu(causal_model):
    """CUDA reports every wait as a warning; there is one for each look at who has ended, every eighth token."""
    model, sampling = causal_model("llama").to("cuda"), Sampling(64, ignore_eos=True)
    sampled(model, "cuda", sampling, at_once=len(LENGTHS))
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as waits:
            sampled(model, "cuda", sampling, at_once=len(LENGTHS))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        model.to("cpu")
    assert len([each for each in waits if "synchron" in str(each.message)]) < 40
