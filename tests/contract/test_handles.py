"""What a strategy hands out and takes back: frozen models, whole parameters, a generation's loan, checkpoints."""

from __future__ import annotations

import logging

import pytest
import torch
from policies import (
    EACH,
    largest_difference,
    load,
    named,
    off_policy,
    plain_steps,
    save,
    settings,
    small_model,
)
from torch.distributed.tensor import DTensor

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.local.plain import PlainSteps
from lightrft.types import Request

each_strategy = pytest.mark.parametrize("strategy", EACH)


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
    return LocalEngine(lambda: run.strategy.gathered(run.policy), _Tokenizer(), [2])


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
            made = sampler.generate(requests, sampling, at_once=2)
            found = [list(generations[0].response_ids) for generations in made]
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


@each_strategy
def test_a_strategy_s_own_hooks_keep_no_step_from_being_plain(trained, samples, monkeypatch, strategy):
    steps, usual = [], PlainSteps.forward
    monkeypatch.setattr(PlainSteps, "forward", lambda self, tokens: steps.append(tokens) or usual(self, tokens))
    engine(trained(strategy)).generate([Request(samples[0].prompt, seeds=(1,))], Sampling(4), at_once=1)
    assert steps


ADAM = "--optimizer adamw --actor_learning_rate 1e-2 --lr_scheduler linear --lr_warmup_steps 2 --max_norm 1"


@each_strategy
def test_saved_and_loaded_bits(trained, rollouts, strategy, tmp_path):
    """Another model loads what was saved: parameters, moments and schedule, shown by the bits of the next two steps."""
    run = trained(f"{strategy} {ADAM}")
    batch = run.batch(rollouts)
    for step in (1, 2, 3):
        run.learn(batch, step)
    save(run.strategy, run.policy, tmp_path)
    other = trained(f"{strategy} {ADAM}", seed=9)
    assert largest_difference(run.parameters(), other.parameters()) > 1e-2
    load(other.strategy, other.policy, tmp_path)
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


def test_an_optimizer_that_was_asked_for_is_not_warned_of(trained):
    said, logger = [], logging.getLogger("DeepSpeed")
    handler = logging.Handler()
    handler.emit = said.append
    logger.addHandler(handler)
    try:
        trained("--zero_stage 1 --optimizer sgd")
        logger.warning("something else")
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in said] == ["something else"]
