"""A policy under a real strategy, built by lightrft/build/ from flags, on random weights and made-up rollouts."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import plain
import torch
from peft import LoraConfig, get_peft_model
from plain import Sample
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from lightrft.algorithms.estimator import load_estimator
from lightrft.args import Args, parse
from lightrft.batch import Batch
from lightrft.build.update import (
    as_it_began,
    make_advantages,
    make_average,
    make_critic,
    make_scorer,
    make_sharding,
    make_strategy,
    make_token_model,
    make_updater,
)
from lightrft.hardware import choose_precision
from lightrft.models.adapters import adapt
from lightrft.models.quantised import quantise
from lightrft.models.token_model import TokenModel
from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.recipe import kl_term, optim_args
from lightrft.step_index import facts_of, index_of
from lightrft.strategy.base import Handle, Precision, Strategy
from lightrft.strategy.state import StateReader, write_model_state
from lightrft.types import MediaInputs, Prompt, Request, Reward, Rollout, SamplingMask
from lightrft.update.step import Updater

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from tiny_addition import make_model  # noqa: E402

BASE = """--pretrain none --prompt_data none.jsonl --reward_fn exact --save_path none --prompt_max_len 8 --max_len 16
 --rollout_batch_size 3 --n_samples_per_prompt 4 --train_batch_size 12 --temperature 0.8 --init_kl_coef 0
 --is_correction off --optimizer sgd --actor_learning_rate 1 --lr_scheduler constant --lr_warmup_steps 0 --max_norm 0"""
STRATEGIES = ("--zero_stage 1", "--zero_stage 2", "--zero_stage 3", "--fsdp", "--fsdp --fsdp_cpu_offload")
ALONE = "--no-fsdp"  # no library that is named: one process in float32 needs none
EACH = (*STRATEGIES, ALONE)
VOCABULARY = range(4, 16)


def arguments(flags: str = "") -> Args:
    return parse([*BASE.split(), *flags.split()])


@dataclass
class Trained:
    """A prepared policy, what updates it, and what scores rollouts with it."""

    args: Args
    strategy: Strategy
    model: TokenModel
    updater: Updater
    frozen: TokenModel | None

    @property
    def policy(self) -> Handle:
        return self.model.handle

    @property
    def reference(self) -> Handle:
        assert self.frozen is not None
        return self.frozen.handle

    def batch(self, rollouts: Sequence[Rollout], **changes: Tensor) -> Batch:
        return self.shaped(rollouts, **changes)[0]

    def shaped(self, rollouts: Sequence[Rollout], **changes: Tensor) -> tuple[Batch, dict[str, float]]:
        """Scored by the real scorer; `changes` replace what it filled, before advantages are computed; and metrics."""
        kl = self.updater.loss.kl
        scorer = make_scorer(self.args, self.strategy, self.model, self.frozen, kl, self.updater.critic)
        ranks = self.strategy.ranks
        index = index_of(ranks.gather(facts_of(rollouts, ranks.rank)), ranks.rank, ranks.size)
        batch = scorer.to_batch(rollouts, index, self.args.sampling.temperature)
        return make_advantages(self.args, self.strategy.ranks, self.updater.estimator, kl)(batch.filled(**changes))

    def learn(self, batch: Batch, step: int = 1) -> dict[str, float]:
        """All optimizer steps of one turn of the loop; metrics and counters."""
        for part in self.updater.partition(batch, step):
            self.updater.step(batch, part)
        report = self.updater.report()
        return {**report.metrics, **report.perf}

    def parameters(self) -> dict[str, Tensor]:
        return {name: value.detach().float().cpu().clone() for name, value in self.strategy.full_params(self.policy)}


def prepare(
    world: World,
    flags: str = "",
    *,
    seed: int = 0,
    reference_seed: int | None = None,
    model: PreTrainedModel | None = None,
    strategy: Strategy | None = None,
    precision: str | None = None,
    make: Callable[[int], PreTrainedModel] | None = None,
    blank: Request | None = None,
) -> Trained:
    """A policy, a critic for gae, and a frozen reference where one is asked for, as the flags say.

    model: one in the place of the random one; make: of a seed, in the place of `small_model`. strategy: one in the
    place of the flags', then in float64. precision: one in the place of the flags'. blank: a prompt with an image.
    """
    args = arguments(flags)
    dtype = torch.float32 if strategy is None else torch.float64
    strategy, make = strategy or own_strategy(args, world, precision), make or small_model
    policy = make_token_model(
        args, strategy, (model or make(seed)).to(world.device, dtype), optim_args(args, 100), blank
    )
    reference = None
    if reference_seed is not None:
        reference = make(reference_seed).to(world.device, dtype).requires_grad_(False)
        reference = make_token_model(args, strategy, reference, None, blank)
    estimator = load_estimator(args.algorithm.advantage_estimator)
    critic = make_critic(args, strategy, estimator, dtype, 100)
    average = make_average(args, strategy, policy.handle, Collectives(world, everyone=True))
    updater = make_updater(args, strategy, policy, estimator, kl_term(args), critic, average)
    if reference is None and policy.handle.adapters is not None and kl_term(args).needs_reference:
        reference = as_it_began(policy)
    return Trained(args, strategy, policy, updater, reference)


def own_strategy(args: Args, world: World, precision: str | None = None) -> Strategy:
    """The library's that --fsdp or a --zero_stage names, and of the very stage, also where a run on one process has
    neither; without these flags a run's own."""
    given = Precision(precision) if precision else choose_precision(args)[0]
    if not args.distributed.fsdp and not args.typed("zero_stage"):
        return make_strategy(args, world, given)
    strategy: Any = make_sharding(args, world, given)
    if not args.distributed.fsdp:
        strategy.stage = args.distributed.zero_stage
    return strategy


def small_model(seed: int = 0, **changes: Any):
    """Two layers of 64, with weights large enough that probabilities are far from uniform.

    changes: of the configuration, as for a model with other heads.
    """
    model = make_model(seed, hidden_size=64)
    if changes:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = type(model)(type(model.config)(**{**model.config.to_dict(), **changes}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter *= 4
    return model.eval()


LORA = {"r": 4, "lora_alpha": 6.0, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}


def with_lora(seed: int = 0, **changes: Any):
    """The small model with adapters that do something, as a run adds them."""
    given = arguments("--lora_rank 4 --lora_alpha 6 --target_modules q_proj v_proj up_proj down_proj").model
    model = small_model(seed, **changes)
    adapt(model, given, seed)
    return fill_adapters(model)


def with_lora_of_peft(seed: int = 0, *, in_4_bits: bool = False, **changes: Any):
    """The same, as PEFT makes it."""
    model = (rounded_model if in_4_bits else small_model)(seed, **changes)
    return fill_adapters(get_peft_model(model, LoraConfig(**LORA)).eval())


def with_qlora(seed: int = 0, device: str = "cpu", **changes: Any):
    """The small model with the same adapters and its other weights in 4 bits, as a run makes them."""
    model = with_lora(seed, **changes)
    quantise(model, arguments("--lora_rank 4 --load_in_4bit").model, torch.device(device))
    return model


def rounded_model(seed: int = 0, **changes: Any):
    """The small model, float32, of the values that 4 bits leave of its layers' weights."""
    from bitsandbytes import functional

    model = small_model(seed, **changes)
    for name, weight in model.named_parameters():
        if name.endswith("_proj.weight"):
            packed, state = functional.quantize_4bit(weight.data, quant_type="nf4", compress_statistics=True)
            weight.data = functional.dequantize_4bit(packed, state)
    return model


def fill_adapters(model):
    """Both matrices of each: a new one's second is 0, and then the first has no gradient."""
    draw = torch.Generator().manual_seed(11)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw) * (0.3 if "lora_A" in name else 0.02)
    return model


def half_frozen(seed: int = 0):
    """Every second parameter does not train: in each layer some do and some do not, the embedding and head do."""
    model = small_model(seed)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    return model


def save_critic(path: Path, make: Callable[[int], PreTrainedModel] = small_model) -> Path:
    """A critic of its own weights with a lively head, named as flags name it."""
    model = make(7)
    model.save_pretrained(path)
    head = torch.randn(1, model.config.hidden_size, generator=torch.Generator().manual_seed(3)) * 0.1
    tensors = {**load_file(path / "model.safetensors"), "score.weight": head}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return path


def make_samples(seed: int = 0) -> list[Sample]:
    """Three groups of four: lengths from 1 to 8, a group of equal rewards, an invalid sample."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(VOCABULARY.start, VOCABULARY.stop, (n,), generator=draw).tolist())

    rewards = [[1.0, 0.0, 0.5, 0.25], [1.0, 1.0, 1.0, 1.0], [0.0, float("nan"), 1.0, 0.0]]
    lengths = [[1, 5, 8, 3], [2, 4, 4, 7], [6, 3, 8, 2]]
    samples = []
    for group, (worth, sizes) in enumerate(zip(rewards, lengths, strict=True)):
        prompt = tokens(3 + 2 * group)
        for reward, size in zip(worth, sizes, strict=True):
            noise = (torch.rand(size, generator=draw) * -4).tolist()
            samples.append(Sample(group, prompt, tokens(size), tuple(noise), reward))
    return samples


def as_rollout(sample: Sample, number: int = 0, media: MediaInputs | None = None) -> Rollout:
    """number: which of its group's samples it is; media: what stands beside its prompt's ids."""
    invalid = sample.reward != sample.reward
    return Rollout(
        prompt=Prompt(id=str(sample.group), messages=()),
        group=sample.group,
        sample=number,
        prompt_ids=sample.prompt,
        response_ids=sample.response,
        response="",
        response_mask=(1,) * len(sample.response),
        rollout_logprobs=sample.logprobs,
        finish_reason="stop",
        policy_version=0,
        mm_inputs=media,
        reward=Reward(sample.reward, error="no answer" if invalid else None),
    )


def with_mask(rollout: Rollout) -> Rollout:
    """Each third of its tokens was drawn from all of the vocabulary, the others from some of it."""
    sets = [() if token % 3 == 0 else sorted({token, *range(token % 5, 16, 3)}) for token in rollout.response_ids]
    mask = SamplingMask(array("i", map(len, sets)), array("i", [token for each in sets for token in each]))
    return replace(rollout, sampling_mask=mask)


def padded_rows(values: Sequence[Tensor], samples: Sequence[Sample], width: int) -> Tensor:
    """Per-response tensors laid out as [B, T], 0 on prompt and padding."""
    found = torch.zeros(len(samples), width)
    for row, (value, sample) in enumerate(zip(values, samples, strict=True)):
        start = len(sample.prompt)
        found[row, start : start + len(value)] = value
    return found


def largest_difference(left: dict, right: dict) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def save(strategy: Strategy, handle: Handle, folder: Path) -> None:
    """On every rank; when it returns, all have written."""
    write_model_state(strategy.state(handle), folder, strategy.world.rank)
    strategy.ranks.gather(["written"])


def load(strategy: Strategy, handle: Handle, folder: Path) -> None:
    """The ranks read in turn: one that asked another for something would wait for ever."""
    for rank in range(strategy.ranks.size):
        if rank == strategy.ranks.rank:
            strategy.load_state(handle, StateReader(folder))
        strategy.ranks.gather(["read"])
    strategy.use_loaded(handle)


def check_that_it_goes_on(run: Trained, other: Trained, batch: Batch, folder: Path) -> None:
    """What `run` has saved after a step and `other` has loaded takes the same next two steps, to the bit."""
    run.learn(batch, 1)
    save(run.strategy, run.policy, folder)
    load(other.strategy, other.policy, folder)
    assert largest_difference(run.parameters(), other.parameters()) == 0
    for number in (2, 3):
        assert run.learn(batch, number) == other.learn(batch, number)
        assert largest_difference(run.parameters(), other.parameters()) == 0


def named(model) -> dict:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def settings(mode: str = "seq-mean-token-mean", **more) -> plain.Loss:
    return plain.Loss(mode=mode, temperature=0.8, max_new_tokens=8, **more)


def plain_steps(model, samples, loss: plain.Loss, parts, **how) -> list[float]:
    """Gradient norms of one SGD step per part; the model changes in place."""
    scale = plain.advantages(samples)
    return [plain.sgd_step(model, loss(model, samples, scale, part.rows), **how) for part in parts]


def off_policy(samples, width: int):
    """Old log-probabilities far enough away that both clips are active: (per sample, as [B, T])."""
    model, draw = small_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        now = [plain.logprobs(model, sample, 0.8) for sample in samples]
    old = [value + 0.5 * torch.randn(value.shape, generator=draw) for value in now]
    return old, padded_rows(old, samples, width)
