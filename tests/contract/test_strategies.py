"""DeepSpeed ZeRO 1, 2, 3 and FSDP2, all real, against a plain PyTorch loop: SGD, no clipping, float32."""

from __future__ import annotations

import copy
import dataclasses

import plain
import pytest
import torch
from policies import STRATEGIES, padded_rows, small_model
from torch.distributed.tensor import DTensor

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.types import Request

MODES = (
    "token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
    "prompt-mean-token-mean",
)
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
zero2_and_fsdp = pytest.mark.parametrize("strategy", ("--zero_stage 2", "--fsdp"))


def largest_difference(left: dict, right: dict) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


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


def smaller(mode: str) -> str:
    """A sum over tokens has a gradient of the order of 10: a smaller step keeps 1e-6 above float32's rounding."""
    return "--actor_learning_rate 0.1" if mode == "seq-mean-token-sum" else ""


@each_strategy
def test_one_step_is_the_plain_step(trained, rollouts, samples, strategy):
    """On policy, every row of three groups, micro-batches of five: the parameters, and so the gradient (lr 1)."""
    run, model = trained(f"{strategy} --train_batch_size 12 --micro_train_batch_size 6"), small_model()
    batch = run.batch(rollouts)
    norms = plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0)
    before = run.parameters()
    metrics = run.learn(batch)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert largest_difference(run.parameters(), before) > 1e-2, "the step must move the parameters, or it shows nothing"
    assert metrics["policy/grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert metrics["policy/lr"] == 1.0


@each_strategy
def test_several_steps_are_the_plain_steps(trained, rollouts, samples, strategy):
    """Two epochs of three optimizer steps, old log-probabilities from the scorer, two turns of the loop."""
    flags = "--train_batch_size 4 --max_epochs 2 --micro_train_batch_size 2 --actor_learning_rate 0.05"
    run, model = trained(f"{strategy} {flags}"), small_model()
    for step in (1, 2):
        batch = run.batch(rollouts)
        with torch.no_grad():
            old = [plain.logprobs(model, sample, 0.8) for sample in samples]
        norms = plain_steps(model, samples, settings(old=old), run.updater.partition(batch, step), learning_rate=0.05)
        metrics = run.learn(batch, step)
        assert metrics["perf/optimizer_steps"] == 6
        assert metrics["policy/grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-4)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert largest_difference(run.parameters(), named(small_model())) > 1e-2


@zero2_and_fsdp
@pytest.mark.parametrize("mode", MODES)
def test_every_aggregation_off_policy(trained, rollouts, samples, strategy, mode):
    """Clipped ratios, an invalid sample, a constant group; the split into micro-batches of any size does not matter."""
    results = []
    for micro in (1, 4, 12):
        run = trained(f"{strategy} --loss_agg_mode {mode} --micro_train_batch_size {micro} {smaller(mode)}")
        batch = run.batch(rollouts)
        old, rows = off_policy(samples, batch.input_ids.shape[1])
        metrics = run.learn(batch.filled(old_logprobs=rows))
        results.append(run.parameters())
        assert metrics["policy/clip_frac"] > 0.1
    model = small_model()
    parts = list(run.updater.partition(batch, 1))
    plain_steps(model, samples, settings(mode, old=old), parts, learning_rate=run.args.training.actor_learning_rate)
    for result in results:
        assert largest_difference(result, named(model)) < 1e-6


@zero2_and_fsdp
@pytest.mark.parametrize("mode", MODES)
def test_kl_loss_against_a_frozen_reference(trained, rollouts, samples, strategy, mode):
    """The KL term has the mode and the denominators of the policy term; the reference never changes."""
    flags = f"{strategy} --init_kl_coef 0.05 --loss_agg_mode {mode} --micro_train_batch_size 3 {smaller(mode)}"
    run, model, reference = trained(flags, reference_seed=5), small_model(), small_model(5)
    with torch.no_grad():
        fixed = [plain.logprobs(reference, sample, 0.8) for sample in samples]
    batch = run.batch(rollouts)
    parts = list(run.updater.partition(batch, 1))
    without, rate = copy.deepcopy(model), run.args.training.actor_learning_rate
    plain_steps(model, samples, settings(mode, kl_coef=0.05, reference=fixed), parts, learning_rate=rate)
    plain_steps(without, samples, settings(mode), parts, learning_rate=rate)
    metrics = run.learn(batch)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert largest_difference(named(without), named(model)) > 1e-3, "the KL term must show"
    assert metrics["kl/ref"] > 0
    frozen = dict(run.strategy.full_params(run.reference))
    assert largest_difference({k: v.detach() for k, v in frozen.items()}, named(reference)) == 0


@each_strategy
def test_longer_padding_changes_nothing(trained, rollouts, strategy):
    results = []
    for extra in (0, 9):
        run = trained(f"{strategy} --micro_train_batch_size 4")
        batch = run.batch(rollouts)
        widened = {
            name: torch.nn.functional.pad(value, (0, extra), value=7 if name == "input_ids" else 0)
            for name, value in batch._tensors().items()
            if value.dim() == 2
        }
        batch = batch.filled(**widened)
        part = next(run.updater.partition(batch, 1))
        # Parts are trimmed to their longest row, so that row is told to be longer than it is.
        batch.attention_mask[0] = 1
        run.updater.step(batch, part)
        results.append(run.parameters())
    assert largest_difference(*results) < 1e-6
    assert largest_difference(results[0], named(small_model())) > 1e-2


@each_strategy
@pytest.mark.parametrize("epochs", (1, 2))
def test_prompts_computed_once_give_the_same_gradient(trained, rollouts, strategy, epochs):
    """--share_prompts packs a group behind one prompt; the short cut may not be taken silently, so it is counted."""
    results, tokens = [], []
    for flag in ("--no-share_prompts", "--share_prompts"):
        run = trained(f"{strategy} --micro_train_batch_size 4 --max_epochs {epochs} {flag}")
        long = [dataclasses.replace(r, prompt_ids=r.prompt_ids * 6) for r in rollouts]
        tokens.append(run.learn(run.batch(long))["perf/train_tokens"])
        results.append(run.parameters())
    assert tokens[1] < tokens[0]
    assert largest_difference(*results) < 1e-6
    assert largest_difference(results[0], named(small_model())) > 1e-2


@each_strategy
def test_clipping_is_the_plain_clipping(trained, rollouts, samples, strategy):
    """The norm that is reported is the one before clipping."""
    run, model = trained(f"{strategy} --max_norm 0.05 --micro_train_batch_size 4"), small_model()
    batch = run.batch(rollouts)
    norms = plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0, max_norm=0.05)
    metrics = run.learn(batch)
    assert norms[0] > 0.5, "the gradient must be long enough to be clipped"
    assert metrics["policy/grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert largest_difference(run.parameters(), named(model)) < 1e-6
    moved = {name: value - named(small_model())[name] for name, value in run.parameters().items()}
    assert sum(float((v.double() ** 2).sum()) for v in moved.values()) ** 0.5 == pytest.approx(0.05, rel=1e-4)


@each_strategy
def test_a_gradient_that_is_not_finite_skips_the_step(trained, rollouts, samples, strategy):
    """Nothing moves, the skip is reported, and the next step is as if nothing had happened."""
    run, model = trained(f"{strategy} --micro_train_batch_size 4 --max_norm 1"), small_model()
    batch = run.batch(rollouts)
    advantages = batch.advantages.clone()
    advantages[0, len(samples[0].prompt)] = float("inf")
    before = run.parameters()
    broken = run.learn(batch.filled(advantages=advantages))
    assert broken["perf/skipped_steps"] == 1
    assert largest_difference(run.parameters(), before) == 0
    plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0, max_norm=1.0)
    assert run.learn(batch)["perf/skipped_steps"] == 0
    assert largest_difference(run.parameters(), named(model)) < 1e-6


@each_strategy
def test_a_frozen_handle_has_no_optimizer_and_is_whole(trained, rollouts, strategy):
    run = trained(f"{strategy} --init_kl_coef 0.1", reference_seed=3)
    frozen = run.reference
    assert frozen.optimizer is None and frozen.scheduler is None
    assert not any(parameter.requires_grad for parameter in frozen.model.parameters())
    run.learn(run.batch(rollouts))  # a forward pass of the reference must not change what it hands out
    found = {name: value.detach().clone() for name, value in run.strategy.full_params(frozen)}
    assert largest_difference(found, named(small_model(3))) == 0


@each_strategy
def test_full_parameters_are_the_hugging_face_ones(trained, rollouts, strategy):
    """Names and values before and after a scoring pass, which leaves a sharded model half gathered."""
    run, model = trained(f"{strategy} --train_batch_size 4"), small_model()
    expected = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}  # tied
    for _ in range(2):
        found = {name: value.detach().clone() for name, value in run.strategy.full_params(run.policy)}
        assert largest_difference(found, expected) == 0
        run.batch(rollouts)
    model.load_state_dict(found, strict=False)  # the names are those that the model itself takes


class _Tokenizer:
    """The engine needs one for stop strings only."""

    eos_token_id = 2


def engine(run) -> LocalEngine:
    return LocalEngine(lambda: run.strategy.gathered(run.policy), _Tokenizer(), [2], prompts_per_batch=2)


def greedy(model, prompts) -> list[list[int]]:
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        tokens = out[0, len(prompt) :].tolist()
        found.append(tokens[: tokens.index(2) + 1] if 2 in tokens else tokens)
    return found


@each_strategy
def test_generation_between_steps(trained, rollouts, samples, strategy):
    """Greedy tokens equal Hugging Face's before and after a step, and steps equal those without any generation."""
    run, model = trained(f"{strategy} --micro_train_batch_size 4 --actor_learning_rate 0.2"), small_model()
    prompts = sorted({sample.prompt for sample in samples})
    requests, sampling = [Request(prompt, seeds=(1,)) for prompt in prompts], Sampling(8, temperature=0.0)
    sampler, seen = engine(run), []
    for step in (1, 2, 3):
        for _ in range(2):
            found = [list(generations[0].response_ids) for generations in sampler.generate(requests, sampling)]
            assert found == greedy(model, prompts)
        seen.append(found)
        batch = run.batch(rollouts)
        plain_steps(model, samples, settings(), run.updater.partition(batch, step), learning_rate=0.2)
        run.learn(batch, step)
        assert largest_difference(run.parameters(), named(model)) < 1e-6
    assert seen[0] != seen[-1], "training must change what is generated, or stale weights would not show"


@each_strategy
def test_a_generation_that_fails_leaves_the_policy_trainable(trained, rollouts, samples, strategy):
    run, model = trained(f"{strategy}"), small_model()
    with pytest.raises(RuntimeError, match="on purpose"), run.strategy.gathered(run.policy):
        raise RuntimeError("on purpose")
    batch = run.batch(rollouts)
    plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0)
    run.learn(batch)
    assert largest_difference(run.parameters(), named(model)) < 1e-6


def hooks(model) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@each_strategy
def test_gathering_is_one_unshard(trained, rollouts, samples, strategy):
    """Whole parameters from the first forward pass to the last, then sharded again, and no hook lost or doubled."""
    run, whole = trained(strategy), {name: p.shape for name, p in small_model().named_parameters()}
    run.learn(run.batch(rollouts))
    before = hooks(run.policy.model)
    for _ in range(2):
        with torch.no_grad(), run.strategy.gathered(run.policy) as model:
            for _ in range(2):
                model(input_ids=torch.tensor([samples[0].prompt]))
                assert {name: p.shape for name, p in model.named_parameters()} == whole
                assert not any(isinstance(p, DTensor) for p in model.parameters())
        assert hooks(run.policy.model) == before
    sharded = {"--fsdp": lambda p: isinstance(p, DTensor), "--zero_stage 3": lambda p: p.numel() == 0}
    if strategy in sharded:
        assert all(sharded[strategy](p) for p in run.policy.model.parameters())


ADAM = "--optimizer adamw --actor_learning_rate 1e-2 --lr_scheduler linear --lr_warmup_steps 2 --max_norm 1"


@each_strategy
def test_saved_and_loaded_bits(trained, rollouts, strategy, tmp_path):
    """Another model loads what was saved: parameters, moments and schedule, shown by the bits of the next two steps."""
    run = trained(f"{strategy} {ADAM}")
    batch = run.batch(rollouts)
    for step in (1, 2, 3):
        run.learn(batch, step)
    run.strategy.save(run.policy, tmp_path)
    other = trained(f"{strategy} {ADAM}", seed=9)
    assert largest_difference(run.parameters(), other.parameters()) > 1e-2
    other.strategy.load(other.policy, tmp_path)
    assert largest_difference(run.parameters(), other.parameters()) == 0
    for step in (4, 5):
        left, right = run.learn(batch, step), other.learn(batch, step)
        assert left == right
        assert largest_difference(run.parameters(), other.parameters()) == 0
    assert largest_difference(run.parameters(), named(small_model())) > 1e-2


BF16_TOLERANCE = 0.03  # a bfloat16 log-probability is off by up to 2^-8 of its logit, about 0.03 here


@pytest.mark.parametrize("strategy", ("--zero_stage 2", "--zero_stage 3", "--fsdp"))
def test_bfloat16_is_close_to_float32(trained, rollouts, samples, strategy):
    """Loss and gradient norm off policy; the optimizer keeps float32 masters, so small steps are not lost."""
    found, dtypes = {}, {}
    for precision in ("--no-bf16", "--bf16"):
        run = trained(f"{strategy} {precision} --micro_train_batch_size 4 --actor_learning_rate 1e-5")
        batch = run.batch(rollouts)
        batch = batch.filled(old_logprobs=off_policy(samples, batch.input_ids.shape[1])[1])
        embed = run.policy.model.get_input_embeddings()
        embed.register_forward_hook(lambda _, __, output, key=precision: dtypes.update({key: output.dtype}))
        found[precision] = run.learn(batch)
    assert dtypes == {"--no-bf16": torch.float32, "--bf16": torch.bfloat16}
    exact, rounded = found["--no-bf16"], found["--bf16"]
    assert rounded["loss/policy"] == pytest.approx(exact["loss/policy"], abs=BF16_TOLERANCE)
    assert rounded["loss/policy"] != exact["loss/policy"]
    assert rounded["policy/grad_norm"] == pytest.approx(exact["policy/grad_norm"], rel=0.1)


@pytest.mark.parametrize("strategy", ("--zero_stage 2", "--zero_stage 3", "--fsdp"))
def test_bfloat16_keeps_small_steps(trained, rollouts, strategy, tmp_path):
    """Forty steps of 1e-5 move weights of 0.1 by less than half a bfloat16 unit each, and still add up."""
    run = trained(f"{strategy} --bf16 --optimizer adamw --actor_learning_rate 2e-5 --micro_train_batch_size 12")
    batch, before = run.batch(rollouts), run.parameters()
    for step in range(1, 41):
        run.learn(batch, step)
    moved = torch.cat([(run.parameters()[name] - value).abs().flatten() for name, value in before.items()])
    assert float((moved > 2e-4).float().mean()) > 0.1
