"""A training step without the loop around it: a model of random weights, rollouts that nobody sampled, one update.

What the trainer makes of flags is made here of the same flags: strategy, layout, head, optimizer.
"""

from __future__ import annotations

import random
import resource
import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lightrft.algorithms.estimator import load_estimator
from lightrft.args import Args, parse
from lightrft.args.conditions import has_4_bits, has_adapters
from lightrft.batch import Batch
from lightrft.build.update import make_advantages, make_scorer, make_strategy, make_token_model, make_updater
from lightrft.hardware import choose_precision
from lightrft.models import adapters, quantised
from lightrft.models.flops import Work
from lightrft.models.products import product
from lightrft.ranks.base import World
from lightrft.recipe import kl_term, optim_args
from lightrft.step_index import facts_of, index_of
from lightrft.types import Prompt, Reward, Rollout

GIB = 1 << 30
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048, "tie_word_embeddings": True,
    },
    "small": {
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8192, "tie_word_embeddings": True,
    },
    "smollm2-135m": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "tie_word_embeddings": True, "max_position_embeddings": 40960,
    },
}  # fmt: skip
BASE = """--pretrain random --prompt_data none.jsonl --reward_fn exact --save_path none --init_kl_coef 0
 --is_correction off --actor_learning_rate 1e-6 --lr_scheduler constant --lr_warmup_steps 0"""


def random_model(size: str, device: torch.device) -> PreTrainedModel:
    torch.manual_seed(0)
    known = dict(SIZES[size])
    config = AutoConfig.for_model(known.pop("model_type"), **known)
    return AutoModelForCausalLM.from_config(config).eval().to(device)


def rollouts(
    groups: int, samples: int, prompt: int, most: int, vocabulary: int, *, equal: bool = False
) -> list[Rollout]:
    """`groups` prompts of `prompt` tokens with `samples` responses of a quarter of `most` tokens to all of it, or where
    they are equal of all of it; half of the responses are right."""
    draw, made = random.Random(0), []
    for group in range(groups):
        ids = tuple(draw.choices(range(vocabulary), k=prompt))
        for sample in range(samples):
            length = most if equal else draw.randint(max(most // 4, 1), most)
            response = tuple(draw.choices(range(vocabulary), k=length))
            made.append(
                Rollout(
                    prompt=Prompt(id=str(group), messages=()), group=group, sample=sample, prompt_ids=ids,
                    response_ids=response, response="", response_mask=(1,) * length, rollout_logprobs=(-1.0,) * length,
                    finish_reason="stop", policy_version=0, reward=Reward(float(sample % 2)),
                )
            )  # fmt: skip
    return made


@dataclass(frozen=True)
class Told:
    """Of one step: seconds of wall and CPU time, tokens of the rows without padding, positions that were computed, and
    floating-point operations of the model for the rows; and the length of the gradient, which no layout changes."""

    wall: float
    cpu: float
    tokens: int
    positions: float
    flops: float
    grad_norm: float


class Training:
    """A prepared policy and what updates it; `step` is one optimizer step on all rows that it is given."""

    def __init__(self, world: World, size: str, flags: str, rows: int, samples: int, longest: int) -> None:
        lengths = f"--prompt_max_len {longest} --max_len {2 * longest}"
        sizes = f"--rollout_batch_size {rows // samples} --n_samples_per_prompt {samples} --train_batch_size {rows}"
        self.args: Args = parse(f"{BASE} {lengths} {sizes} {flags}".split())
        self.world, self.strategy = world, make_strategy(self.args, world, choose_precision(self.args)[0])
        model = random_model(size, world.device)
        self.vocabulary = int(model.config.vocab_size)
        if has_adapters(self.args.model):
            adapters.adapt(model, self.args.model, seed=0)
        if has_4_bits(self.args.model):
            quantised.quantise(model, self.args.model, world.device)
        self.work = Work.of(model)
        self.policy = make_token_model(self.args, self.strategy, model, optim_args(self.args, 100))
        estimator, kl = load_estimator(self.args.algorithm.advantage_estimator), kl_term(self.args)
        self.updater = make_updater(self.args, self.strategy, self.policy, estimator, kl)
        self.scorer = make_scorer(self.args, self.strategy, self.policy, None, kl)
        self.advantages = make_advantages(self.args, self.strategy.ranks, estimator, kl)

    def batch(self, made: list[Rollout]) -> Batch:
        ranks = self.strategy.ranks
        index = index_of(ranks.gather(facts_of(made, ranks.rank)), ranks.rank, ranks.size)
        return self.advantages(self.scorer.to_batch(made, index, 1.0))[0]

    def step(self, batch: Batch) -> Told:
        finish(self.world.device)
        start = time.perf_counter(), time.process_time()
        (part,) = list(self.updater.partition(batch, 1))
        self.updater.step(batch, part)
        finish(self.world.device)
        wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
        report, own = self.updater.report(), batch.index.own
        lengths, trained = batch.index.lengths[own], batch.index.trained[own]
        flops = self.work.of_rows(lengths, trained)
        positions, norm = report.perf["perf/train_tokens"], report.metrics["policy/grad_norm"]
        return Told(wall, cpu, int(lengths.sum()), positions, flops, norm)


def peak_gib() -> float:
    """Of this process's memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matmul_peak(dtype: torch.dtype, device: torch.device, seconds: float = 1.0, size: int = 4096) -> float:
    """FLOP per second of square products as a model's linear layers make them, which no model's step exceeds: of wall
    time on a GPU, else of CPU time of all threads, which other work on the machine does not change much."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    count = 0
    product(a, b.t())
    finish(device)
    start = clock()
    while not count or clock() - start < seconds:
        product(a, b.t())
        finish(device)
        count += 1
    return count * 2 * size**3 / (clock() - start)


def finish(device: torch.device) -> None:
    """Waits for what the device has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()
