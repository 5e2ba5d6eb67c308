"""vLLM on a GPU: agreement, sleep, memory and speed with a model of 0.6 B parameters, in less than ten minutes.

    python -m pytest -m "gpu and vllm" -s tests/engines/test_engine_gpu.py

in an environment that has vLLM; what it measures is printed.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from engine_models import END
from tiny_addition import make_tokenizer

from lightrft.args import parse
from lightrft.models.fingerprint import MODULUS, fingerprint
from lightrft.ranks.launch import join_world, leave_world
from lightrft.rollouts.engines import vllm
from lightrft.rollouts.engines.base import InferenceEngine, Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.sync.weights import named as streamed
from lightrft.types import Request

pytestmark = [pytest.mark.gpu, pytest.mark.vllm]

FLAGS = """--prompt_data none.jsonl --reward_fn exact --save_path none --rollout_batch_size 4 --n_samples_per_prompt 8
 --train_batch_size 32 --max_len 1024 --prompt_max_len 256 --engine_type vllm --engine_mem_util 0.3"""
CYCLES = 200
LOCAL_BEFORE = 1060  # tokens/s of the local engine before it recorded its steps, 32 rows of this model on an H200
REQUESTS = [Request(tuple(range(1000 * i + 5, 1000 * i + 37)), tuple(range(8 * i, 8 * i + 8))) for i in range(4)]


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """The trainer's model in bf16 on the GPU, and an engine for it that has its weights."""
    world, folder = join_world(), tmp_path_factory.mktemp("qwen3")
    model = make_model(folder).to(world.device)
    args = parse([*f"--pretrain {folder} {FLAGS}".split()])
    engine = vllm.make(args.model, args.engine, make_tokenizer(), {END}, torch.bfloat16, world)
    found = SimpleNamespace(model=model, engine=engine, folder=folder)
    give(found)
    yield found
    engine.close()
    leave_world()


def make_model(folder: Path):
    """Of Qwen3-0.6B's shape, with random weights; the folder gets what --pretrain needs, and no weights."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config).bfloat16().requires_grad_(False).eval()
    config.architectures = ["Qwen3ForCausalLM"]
    config.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model


def named(model):
    """As `WeightSync.push` does it."""
    return streamed(model, model.named_parameters(), torch.bfloat16)


def give(there) -> float:
    """A whole round: weights, sync, KV cache. Seconds of the sync."""
    there.engine.wake("weights")
    torch.cuda.synchronize()
    start = time.perf_counter()
    there.engine.update_weights(named(there.model), 1)
    torch.cuda.synchronize()
    took = time.perf_counter() - start
    there.engine.wake("kv_cache")
    return took


def gaps(there, sampling: Sampling) -> torch.Tensor:
    """|engine - trainer| of all sampled tokens."""
    found = []
    for made in (row for group in there.engine.generate(REQUESTS, sampling, at_once=4) for row in group):
        ids = torch.tensor([[*made.prompt_ids, *made.response_ids]], device=there.model.device)
        logits = there.model(ids).logits[0, len(made.prompt_ids) - 1 : -1].float() / (sampling.temperature or 1.0)
        wanted = logits.log_softmax(-1).gather(1, ids[0, len(made.prompt_ids) :, None])[:, 0]
        found.append((wanted.cpu() - torch.tensor(made.logprobs)).abs())
    return torch.cat(found)


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 1.0), (0.6, 0.9), (0.0, 1.0)])
def test_log_probabilities_are_the_trainers(there, temperature, top_p):
    found = gaps(there, Sampling(32, temperature, top_p))
    print(f"\ngap at temperature {temperature} top_p {top_p}: mean {found.mean():.4f}, max {found.max():.4f}")
    assert found.mean() < 0.03 and found.max() < 0.3  # bf16; with filtered ones 0.1 on every token


def test_it_holds_what_the_trainer_has(there):
    wanted = {name: fingerprint(value) for name, value in named(there.model)}
    told = there.engine.fingerprints()
    assert {name for names in told for name in names} >= set(wanted) - {"lm_head.weight"}
    for names, number in told.items():
        assert number == sum(wanted[name] for name in names) % MODULUS, names


def test_a_seed_gives_a_response_again(there):
    first, again = (there.engine.generate(REQUESTS[:1], Sampling(32), at_once=4) for _ in range(2))
    assert [row.response_ids[:8] for row in first[0]] == [row.response_ids[:8] for row in again[0]]
    assert len({row.response_ids for row in first[0]}) == 8


@pytest.mark.parametrize("keep_weights", [True, False], ids=["level 1", "level 2"])
def test_sleep_gives_memory_back_and_a_wake_brings_it(there, keep_weights):
    awake = in_use()
    for _ in range(2):
        there.engine.sleep(keep_weights=keep_weights)
    asleep = in_use()
    print(f"\nsleep: {awake:.1f} -> {asleep:.1f} GiB in use")
    assert asleep < 0.5 * awake
    if keep_weights:
        there.engine.wake("weights")
        there.engine.wake("kv_cache")
    else:
        with torch.no_grad():
            for value in there.model.parameters():
                value.mul_(1.01)
        took = give(there)
        size = sum(value.numel() * 2 for value in there.model.parameters()) / 1e9
        print(f"sync: {took:.2f} s for {size:.2f} GB, {size / took:.1f} GB/s")
    assert gaps(there, Sampling(32)).mean() < 0.03
    test_it_holds_what_the_trainer_has(there)


def test_memory_does_not_drift(there):
    """Asleep, after a warm-up of ten cycles and after all of them."""
    seen = []
    for _ in range(CYCLES):
        there.engine.sleep(keep_weights=False)
        seen.append(in_use())
        give(there)
        there.engine.generate(REQUESTS[:1], Sampling(4), at_once=4)
    print(f"\nasleep: {seen[10]:.3f} GiB after 10 cycles, {seen[-1]:.3f} GiB after {CYCLES}")
    assert seen[-1] < 1.01 * seen[10]


def test_tokens_per_second(there):
    """Of both engines at 32 rows, the second time: the first one prepares what is kept."""
    own = LocalEngine(lambda: nullcontext(there.model), make_tokenizer(), {END})  # type: ignore[arg-type]
    vllms, local = speed(there.engine), speed(own)
    print(f"\n{torch.cuda.get_device_name()}: vLLM {vllms:.0f} and local {local:.0f} tokens/s at {4 * 8} rows")
    assert local > 5 * LOCAL_BEFORE


def speed(engine: InferenceEngine) -> float:
    for _ in range(2):
        start = time.perf_counter()
        made = engine.generate(REQUESTS, Sampling(512, ignore_eos=True), at_once=4)
        took = time.perf_counter() - start
    tokens = sum(len(row.response_ids) for group in made for row in group)
    assert tokens == 4 * 8 * 512
    return tokens / took


def test_a_value_that_vllm_refuses_is_found_before_it_starts(there):
    def fault(pair: str) -> str | None:
        args = parse([*f"--pretrain {there.folder} {FLAGS} --engine_kwargs {pair}".split()])
        return vllm.settings_fault(args.model, args.engine, there.model.device.type)

    assert fault("max_num_seqs=4") is None
    assert (fault("max_num_seqs=0") or "").startswith("--engine_kwargs max_num_seqs=0: vLLM refuses it: ")


def in_use() -> float:
    """GiB of the GPU that anybody uses."""
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30
