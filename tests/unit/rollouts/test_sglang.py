"""What of the SGLang adapter needs no SGLang: tests/engines runs the rest on the real engine."""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from array import array
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from lightrft.errors import RunFailed
from lightrft.models import suitable
from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines import sglang, sglang_engine, sglang_scheduler, sglang_settings
from lightrft.rollouts.engines.base import EngineFailed, Sampling
from lightrft.rollouts.engines.noise import uniforms
from lightrft.rollouts.engines.sampling import draw, draw_hot
from lightrft.rollouts.engines.sglang_engine import SGLangEngine
from lightrft.types import Request, SamplingMask


def test_what_it_can_do_is_told_without_torch_and_without_sglang():
    code = "import sys, lightrft.rollouts.engines.sglang; sys.exit(bool({'torch', 'sglang'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_it_can_do_all_but_a_hot_first_token_where_none_is_drawn():
    everything = Sampling(4, 0.6, 0.9, 5, 0.1, stop=("x",), ignore_eos=True, first_temperature=10.0)
    assert sglang.unsupported(everything) is None
    assert "--use_fire" in (sglang.unsupported(Sampling(4, 0.0, first_temperature=10.0)) or "")


@pytest.fixture
def fault(monkeypatch):
    """(pairs, what SGLang says to them) -> what is wrong."""

    def found(*pairs: str, **says) -> str | None:
        told = {"names": ["max_total_tokens", "page_size"], "name": None, "fault": None, **says}
        monkeypatch.setattr(sglang, "_chosen", lambda model, engine, dtype, device: {"device": device.type})
        monkeypatch.setattr(sglang, "_variables", lambda model, chosen: {})
        monkeypatch.setattr(sglang, "_told", lambda asked, variables: told)
        return sglang.settings_fault(SimpleNamespace(), SimpleNamespace(engine_kwargs=list(pairs)), "cuda")

    return found


def test_settings_of_others_and_those_that_flags_set(fault):
    assert fault("max_total_tokens=8") is None
    assert fault("dtype=float16") == "--engine_kwargs dtype=float16: --engine_dtype sets it"
    assert fault("max_total_token=8") == (
        "--engine_kwargs max_total_token=8: SGLang has no max_total_token; nearest: max_total_tokens"
    )


def test_a_value_that_sglang_refuses_is_told_with_its_setting_where_it_is_one(fault):
    pairs = ("max_total_tokens=many", "page-size=3")
    one = fault(*pairs, name="page_size", fault="SGLang takes 1")
    assert one == "--engine_kwargs page-size=3: SGLang takes 1"
    assert fault(*pairs, fault="x") == "--engine_kwargs max_total_tokens=many page-size=3: x"


@pytest.mark.parametrize(
    ("value", "takes"),
    [(8, None), ("8", "a whole number"), (8.5, "a whole number"), (True, "a whole number"), (None, None)],
)
def test_a_value_is_looked_at_as_on_sglangs_command_line(value, takes):
    parser = argparse.ArgumentParser()
    whole = parser.add_argument("--n", type=int)
    assert sglang_settings._takes(whole, value) == takes


def test_choices_and_switches_are_looked_at_too():
    parser = argparse.ArgumentParser()
    choice, switch = parser.add_argument("--c", choices=["a", "b"]), parser.add_argument("--s", action="store_true")
    assert [sglang_settings._takes(choice, value) for value in ("a", "c", ["a", {}])] == [None, "a, b", "a, b"]
    assert [sglang_settings._takes(switch, value) for value in (False, "maybe")] == [None, "true or false"]
    assert sglang_settings._takes(parser.add_argument("--f", type=float), 1) is None


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ("incremental_streaming_output=true", "an answer is read as a whole, and would be its last tokens alone"),
        ("stream-interval=8", "it is how often the trainer hears that work goes on"),
        ("ep_size=2", "an engine is spread by --engine_tp_size alone"),
        ("nnodes=2", "an engine is spread by --engine_tp_size alone"),
        ("enable_lora=true", "the weights would not be those that are trained"),
        ("preferred_sampling_params={}", "it would draw by other rules than those of the flags"),
    ],
)
def test_what_would_change_what_an_answer_means_is_barred(fault, pair, why):
    assert fault(pair) == f"--engine_kwargs {pair}: {why}"


@pytest.mark.parametrize(("positions", "allowed"), [(199, None), (200, "1"), (4096, "1")])
def test_a_max_len_that_fits_the_model_may_be_filled(monkeypatch, positions, allowed):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=positions))
    monkeypatch.setattr(suitable, "read_config", lambda _: config)
    variables = sglang._variables(SimpleNamespace(max_len=200), {"device": "cuda", "tp_size": 1})
    assert variables.get("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN") == allowed


@pytest.fixture
def engine(monkeypatch):
    """Its process is not started; `asked` holds what it would have been asked, but for the weights."""
    asked: list = []
    host = SimpleNamespace(ask=lambda what, *parts: asked.append((what, *parts)), close=lambda: asked.append("close"))
    monkeypatch.setattr(sglang_engine, "Host", lambda *_: host)
    chosen = {"device": "cuda", "tp_size": 4}
    made = SGLangEngine("none", chosen, None, {2}, torch.float32, variables={}, max_len=40, sleeps=True)
    made.update_weights((), 1)
    asked.clear()
    return SimpleNamespace(made=made, asked=asked)


@pytest.mark.parametrize(("seed", "signed"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)])
def test_a_seed_of_64_bits_comes_back_whole(engine, seed, signed):
    assert engine.made._params(Sampling(4), seed)["sampling_seed"] == signed
    assert signed & sglang_scheduler.UNSIGNED == seed


def test_memory_is_asked_for_as_often_as_it_was_given_back(engine):
    for keep in (True, False):
        engine.made.wake("weights")
        for _ in range(2):
            engine.made.sleep(keep_weights=keep)
        for what in ("weights", "kv_cache") * 2:
            engine.made.wake(what)
    assert engine.asked == [
        ("release", ["kv_cache"]),
        ("resume", ["kv_cache"]),
        ("release", ["kv_cache", "weights"]),
        ("resume", ["weights"]),
        ("resume", ["kv_cache"]),
    ]


def test_without_engine_sleep_nothing_is_given_back(engine):
    engine.made.sleeps = False
    engine.made.sleep(keep_weights=False)
    with pytest.raises(AssertionError, match="the engine sleeps"):
        engine.made.generate([], Sampling(4), at_once=1)
    engine.made.wake("weights")
    engine.made.wake("kv_cache")
    assert engine.asked == []


def test_a_fresh_one_is_started_when_it_is_needed_and_has_no_weights(engine):
    engine.made.sleep(keep_weights=False)
    engine.made.restart()
    assert engine.asked == [("release", ["kv_cache", "weights"]), "close"]
    engine.made.wake("weights")
    with pytest.raises(AssertionError, match="no weights yet"):
        engine.made.generate([], Sampling(4), at_once=1)
    engine.made.update_weights((), 2)
    engine.made.wake("kv_cache")
    assert engine.made.generate([], Sampling(4), at_once=1) == []
    assert [each[0] for each in engine.asked[2:]] == ["begin_weights", "end_weights"]


def answer(*ids, end="stop", **more):
    return {"ids": list(ids), "logprobs": [-1.0, None][: len(ids)], "end": {"type": end, **more}}


def test_what_it_answers_is_a_response_or_told(engine):
    request, made = Request((4, 5), (1,)), engine.made
    found = made._generation(request, answer(7, 2), Sampling(4))
    assert (found.response_ids, found.finish_reason, found.logprobs[0]) == ((7, 2), "stop", -1.0)
    assert math.isnan(found.logprobs[1]), "which the comparison with the trainer leaves out and counts"
    assert made._generation(request, answer(7, 3, end="length"), Sampling(2)).finish_reason == "length"
    with pytest.raises(
        RunFailed, match=r"no room for 2 tokens and 4 new ones; raise --engine_kwargs max_total_tokens="
    ):
        made._generation(request, answer(7, end="length"), Sampling(4))
    with pytest.raises(EngineFailed, match=r"^--engine_type sglang: a request was given up: too slow$"):
        made._generation(request, answer(end="abort", message="too slow"), Sampling(4))


def test_a_mask_and_log_probabilities_on_it_come_together(engine):
    sets = {"sizes": array("i", [2, 1]), "kept": array("i", [2, 7, 2]), "kept_logprobs": [-0.5, 0.0]}
    asked = Sampling(4, 0.8, 0.9, returns_mask=True)
    request, told = Request((4, 5), (1,)), {**answer(7, 2), "logprobs": [-1.0, -0.1], **sets}
    found = engine.made._generation(request, told, asked)
    assert found.sampling_mask == SamplingMask(sets["sizes"], sets["kept"]) and found.logprobs == (-0.5, 0.0)
    hot = engine.made._generation(request, told, replace(asked, first_temperature=9.0))
    assert hot.sampling_mask == SamplingMask(array("i", [0, 1]), array("i", [2])) and hot.logprobs == (-1.0, 0.0)
    for nothing_left_out in (replace(asked, top_p=1.0), replace(asked, temperature=0.0)):
        found = engine.made._generation(request, {**answer(7, 2), "logprobs": [-1.0, -0.1]}, nothing_left_out)
        assert found.sampling_mask == SamplingMask(array("i", [0, 0]), array("i")) and found.logprobs == (-1.0, -0.1)
    engine.made.chosen["sampling_mask_max_tokens"] = 99
    tops = [
        engine.made._params(each, 1)["top_k"] for each in (asked, replace(asked, top_k=5), replace(asked, top_p=1.0))
    ]
    assert tops == [99, 5, -1], "it gives no mask without one"


def test_fingerprints_of_shards_add_up_and_those_held_twice_count_once(engine):
    engine = engine.made
    engine.sizes = {"w": 8, "norm": 4, "k": 8, "embed": 6}
    assert engine._whole(["w"], [(1, 2), (10, 2), (100, 2), (1000, 2)]) == 1111
    assert engine._whole(["norm"], [(7, 4)] * 4) == 7
    assert engine._whole(["norm"], [(7, 4), (7, 4), (9, 4), (7, 4)]) == 9, "what differs on one process shows"
    assert engine._whole(["k"], [(5, 4), (5, 4), (6, 4), (6, 4)]) == 11
    assert engine._whole(["embed"], [(1, 4), (2, 2), (0, 0), (0, 0)]) == 3, "the last ones have padding alone"
    assert engine._whole(["never pushed"], [(1, 2)] * 4) == 4


def test_weights_are_sent_in_pieces_each_in_one_memory(monkeypatch):
    monkeypatch.setattr(sglang_engine, "BUCKET_BYTES", 40)
    tensors = [(name, torch.randn(2, 3)) for name in "abcde"]
    pieces = list(sglang_engine._buckets(iter(tensors)))
    assert [[name for name, _ in piece] for piece in pieces] == [["a", "b"], ["c", "d"], ["e"]]
    for (name, value), (sent, copy) in zip(tensors, sum(pieces, []), strict=True):
        assert name == sent and torch.equal(value, copy) and value.data_ptr() != copy.data_ptr()
    assert len({value.untyped_storage().data_ptr() for _, value in pieces[0]}) == 1


HOT = Sampling(5, 0.6, top_k=9, first_temperature=10.0)


@pytest.mark.parametrize("sampling", [Sampling(5), Sampling(5, 0.6, 0.9), Sampling(5, 1.3, 0.8, 7, 0.05), HOT], ids=str)
def test_its_sampler_draws_what_the_local_engine_draws(monkeypatch, sampling):
    torch.manual_seed(0)
    logits, seeds, prompts = torch.randn(3, 300) * 2, [3, 2**64 - 1, 5], [4, 7, 4]
    noise = torch.from_numpy(uniforms(seeds, 5))
    first = torch.tensor([[length - 1.0] for length in prompts], dtype=torch.float64)
    monkeypatch.setattr(sglang_scheduler.Drawing, "sampling", sampling)
    hot = (logits / 10).softmax(-1) if sampling is HOT else None
    for token in range(5):
        wanted, *_ = (draw_hot if sampling is HOT and token == 0 else draw)(logits, noise[:, token], sampling)
        positions = torch.tensor([length - 1 + token for length in prompts])
        probs = (logits / sampling.temperature).softmax(-1)
        found, _ = sglang_scheduler.drawn(probs, hot, torch.cat([first, noise], 1), positions)
        assert found.tolist() == wanted.tolist()


def test_noise_is_as_long_as_was_asked_though_one_request_has_room_for_less(engine):
    """SGLang lowers `max_new_tokens` of the long one to 1."""
    asked = [dict(engine.made._params(Sampling(5, 0.6), seed), max_new_tokens=most) for seed, most in ((3, 1), (9, 5))]
    reqs = [SimpleNamespace(sampling_params=SimpleNamespace(**each), origin_input_ids=[4, 5]) for each in asked]
    info = sglang_scheduler.with_noise(lambda *_: SimpleNamespace())(None, SimpleNamespace(reqs=reqs, device="cpu"), 0)
    assert info.sampling_seed[:, 1:].tolist() == uniforms([3, 9], 5).tolist()


@pytest.mark.parametrize("position", [2, 15])
def test_what_it_draws_and_throws_away_does_not_end_it(position):
    """After a part of a prompt of ten tokens, and after the last of five."""
    noise = torch.tensor([[9.0, *[0.5] * 5]], dtype=torch.float64)
    found, _ = sglang_scheduler.drawn(torch.tensor([[0.0, 1.0]]), None, noise, torch.tensor([position]))
    assert found.tolist() == [1]


def test_fused_tensors_go_by_the_names_they_are_made_of():
    class Fused(torch.nn.Linear):
        q_proj_shard_size, kv_proj_shard_size = 4, 2

    model = torch.nn.Module()
    model.qkv_proj, model.gate_up_proj, model.norm = Fused(3, 8), torch.nn.Linear(3, 6), torch.nn.LayerNorm(3)
    model.embed = torch.nn.Embedding(4, 3)
    model.embed.shard_indices = SimpleNamespace(num_org_elements=3)
    found = {names: fingerprint(shard) for names, shard in sglang_scheduler._shards(model)}
    assert list(found)[:3] == [("q_proj.weight",), ("k_proj.weight",), ("v_proj.weight",)]
    assert sum(found[(f"{part}_proj.weight",)] for part in "qkv") % 2**64 == fingerprint(model.qkv_proj.weight)
    assert found[("gate_proj.weight", "up_proj.weight")] == fingerprint(model.gate_up_proj.weight)
    assert found[("norm.weight",)] == fingerprint(model.norm.weight)
    assert found[("embed.weight",)] == fingerprint(model.embed.weight[:3]), "padding may be anything"
