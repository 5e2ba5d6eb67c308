"""What of the SGLang adapter needs no SGLang: tests/engines runs the rest on the real engine."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines import sglang, sglang_scheduler
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.noise import uniforms
from lightrft.rollouts.engines.sampling import draw


def test_what_it_can_do_is_told_without_torch_and_without_sglang():
    code = "import sys, lightrft.rollouts.engines.sglang; sys.exit(bool({'torch', 'sglang'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_what_it_cannot_do():
    assert sglang.unsupported(Sampling(4, 0.6, 0.9, 5, 0.1, ignore_eos=True)) is None
    assert "--use_fire" in (sglang.unsupported(Sampling(4, first_temperature=10.0)) or "")
    assert "--stop" in (sglang.unsupported(Sampling(4, stop=("\n",))) or "")


def test_settings_without_a_value_and_those_that_flags_set(monkeypatch):
    monkeypatch.setattr(sglang, "_known_settings", lambda: ("max_total_tokens", "attention_backend"))
    assert sglang.settings_fault(["max_total_tokens=8"]) is None
    assert sglang.settings_fault(["max_total_tokens"]) == (
        "--engine_kwargs max_total_tokens has no value; write max_total_tokens=value"
    )
    assert sglang.settings_fault(["dtype=float16"]) == "--engine_kwargs dtype is set by other flags"
    assert sglang.settings_fault(["max_total_token=8"]) == (
        "--engine_kwargs max_total_token: sglang has no such setting; nearest: max_total_tokens"
    )


@pytest.fixture
def engine(monkeypatch):
    """Its process is not started; `asked` holds what it would have been asked."""
    asked = []
    host = SimpleNamespace(ask=lambda what, *parts: asked.append((what, *parts)), asked=asked)
    monkeypatch.setattr(sglang, "Host", lambda *_: host)
    return sglang.SGLangEngine({"device": "cuda", "tp_size": 4}, torch.float32, {2})


@pytest.mark.parametrize(("seed", "signed"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)])
def test_a_seed_of_64_bits_comes_back_whole(engine, seed, signed):
    assert engine._asked(Sampling(4), seed)["sampling_seed"] == signed
    assert signed & sglang_scheduler.UNSIGNED == seed


def test_memory_is_asked_for_as_often_as_it_was_given_back(engine):
    engine.wake("weights")
    engine.sleep(keep_weights=True)
    engine.sleep(keep_weights=True)
    engine.wake("weights")
    engine.sleep(keep_weights=False)
    engine.wake("weights")
    engine.wake("weights")
    engine.wake("kv_cache")
    assert engine.host.asked == [
        ("release", ["kv_cache"]),
        ("release", ["weights"]),
        ("resume", ["weights"]),
        ("resume", ["kv_cache"]),
    ]


def test_fingerprints_of_shards_add_up_and_those_held_twice_count_once(engine):
    engine.sizes = {"w": 8, "norm": 4, "k": 8, "embed": 6}
    assert engine._whole(["w"], [(1, 2), (10, 2), (100, 2), (1000, 2)]) == 1111
    assert engine._whole(["norm"], [(7, 4)] * 4) == 7
    assert engine._whole(["norm"], [(7, 4), (7, 4), (9, 4), (7, 4)]) == 9, "what differs on one process shows"
    assert engine._whole(["k"], [(5, 4), (5, 4), (6, 4), (6, 4)]) == 11
    assert engine._whole(["embed"], [(1, 2)] * 4) == 4, "rows of padding are zeros"


def test_weights_are_sent_in_pieces_each_in_one_memory(monkeypatch):
    monkeypatch.setattr(sglang, "BUCKET_BYTES", 40)
    tensors = [(name, torch.randn(2, 3)) for name in "abcde"]
    pieces = list(sglang._buckets(iter(tensors)))
    assert [[name for name, _ in piece] for piece in pieces] == [["a", "b"], ["c", "d"], ["e"]]
    for (name, value), (sent, copy) in zip(tensors, sum(pieces, []), strict=True):
        assert name == sent and torch.equal(value, copy) and value.data_ptr() != copy.data_ptr()
    assert len({value.untyped_storage().data_ptr() for _, value in pieces[0]}) == 1


@pytest.mark.parametrize("sampling", [Sampling(5), Sampling(5, 0.6, 0.9), Sampling(5, 1.3, 0.8, 7, 0.05)], ids=str)
def test_its_sampler_draws_what_the_local_engine_draws(monkeypatch, sampling):
    torch.manual_seed(0)
    logits, seeds, prompts = torch.randn(3, 300) * 2, [3, 2**64 - 1, 5], [4, 7, 4]
    noise = torch.from_numpy(uniforms(seeds, 5))
    first = torch.tensor([[length - 1.0] for length in prompts], dtype=torch.float64)
    monkeypatch.setattr(sglang_scheduler.Drawing, "sampling", sampling)
    for token in range(5):
        wanted, _ = draw(logits, noise[:, token], sampling)
        positions = torch.tensor([length - 1 + token for length in prompts])
        probs = (logits / sampling.temperature).softmax(-1)
        assert sglang_scheduler.drawn(probs, torch.cat([first, noise], 1), positions).tolist() == wanted.tolist()


def test_fused_tensors_go_by_the_names_they_are_made_of():
    class Fused(torch.nn.Linear):
        q_proj_shard_size, kv_proj_shard_size = 4, 2

    model = torch.nn.Module()
    model.qkv_proj, model.gate_up_proj, model.norm = Fused(3, 8), torch.nn.Linear(3, 6), torch.nn.LayerNorm(3)
    found = {names: fingerprint(shard) for names, shard in sglang_scheduler._shards(model)}
    assert list(found)[:3] == [("q_proj.weight",), ("k_proj.weight",), ("v_proj.weight",)]
    assert sum(found[(f"{part}_proj.weight",)] for part in "qkv") % 2**64 == fingerprint(model.qkv_proj.weight)
    assert found[("gate_proj.weight", "up_proj.weight")] == fingerprint(model.gate_up_proj.weight)
    assert found[("norm.weight",)] == fingerprint(model.norm.weight)
