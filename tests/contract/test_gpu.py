"""On one GPU: bfloat16 by default, one step under each strategy, and an engine that agrees with the trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from launch import launch
from layouts import IDS
from policies import arguments, as_rollout, make_samples, own_strategy, small_model, with_qlora
from test_precision import COLUMNS, SGD, Layer, gradient_error, step

from lightrft.hardware import choose_precision
from lightrft.models import recompute
from lightrft.models.quantised import layers_in_4_bits
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.types import Request

pytestmark = pytest.mark.gpu
each_strategy = pytest.mark.parametrize("strategy", ("--zero_stage 2", "--zero_stage 3", "--fsdp"))
each_column = pytest.mark.parametrize(("strategy", "precision"), COLUMNS)
ROOT = Path(__file__).parents[2]
NOISE = ("NCCL version", "barrier()", "destroy_process_group", "Traceback")
BF16_GAP = 0.1  # of single log-probabilities between two bfloat16 passes with other kernels; the mean is far below


class _Tokenizer:
    eos_token_id = 2


def test_bfloat16_is_the_default(trained):
    run = trained("--fsdp")
    precision, why = choose_precision(run.args)
    assert (precision.compute, why) == ("bf16", "the GPU has bf16")
    assert run.strategy.world.device.type == "cuda"


@each_strategy
@pytest.mark.parametrize("precision", ("", "--no-bf16"))
def test_one_step(trained, rollouts, strategy, precision):
    run = trained(f"{strategy} {precision} --actor_learning_rate 0.05 --micro_train_batch_size 4")
    before = run.parameters()
    metrics = run.learn(run.batch(rollouts))
    after = run.parameters()
    assert torch.isfinite(torch.tensor([metrics["loss/policy"], metrics["policy/grad_norm"]])).all()
    assert metrics["update/skipped_steps"] == 0 and metrics["policy/grad_norm"] > 0.1
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3


@each_strategy
@pytest.mark.parametrize("precision", ("", "--no-bf16"))
def test_one_step_beside_weights_in_4_bits(trained, rollouts, strategy, precision):
    """They are on the GPU, of the values that a CPU makes of them, and stay so while adapters learn."""
    flags = f"{strategy} {precision} --actor_learning_rate 0.05 --micro_train_batch_size 4"
    run = trained(flags, make=partial(with_qlora, device="cuda"))
    before, on_cpu = run.parameters(), layers_in_4_bits(with_qlora())
    metrics = run.learn(run.batch(rollouts))
    assert metrics["update/skipped_steps"] == 0 and metrics["policy/grad_norm"] > 0.01
    assert run.parameters().keys() == before.keys() and not all(
        torch.equal(value, before[name]) for name, value in run.parameters().items()
    )
    for name, layer in layers_in_4_bits(run.policy.model).items():
        assert layer.packed.is_cuda and torch.allclose(layer.weight.cpu(), on_cpu[name].weight, atol=1e-6)


@each_strategy
@pytest.mark.parametrize("layout", ("--no-share_prompts", "--packing_samples"))
@pytest.mark.parametrize("more", ("--recompute_granularity selective", "--activation_offload"))
def test_what_layers_keep_changes_no_step(trained, rollouts, strategy, layout, more, monkeypatch):
    """In bfloat16 attention is FlashAttention's, and in the packed rows our calls of it; gradients differ by the order
    of sums."""
    flags = f"{strategy} {layout} --bf16 --gradient_checkpointing --micro_train_batch_size 4"
    norms, moved, to_host = [], [], recompute._to_host
    monkeypatch.setattr(recompute, "_to_host", lambda tensor: moved.append(tensor.device.type) or to_host(tensor))
    for each in ("", more):
        run = trained(f"{flags} {each}")
        norms.append(run.learn(run.batch(rollouts))["policy/grad_norm"])
    assert norms[0] > 0.1 and norms[1] == pytest.approx(norms[0], rel=1e-3)
    assert set(moved) == ({"cuda"} if more == "--activation_offload" else set())


@each_strategy
@pytest.mark.parametrize(("precision", "largest"), (("--bf16", BF16_GAP), ("--no-bf16", 1e-4)))
@pytest.mark.parametrize("filters", ({}, {"top_k": 6, "returns_mask": True}))
def test_the_engine_agrees_with_the_trainer(trained, strategy, precision, largest, filters):
    """Sampled log-probabilities against the scorer's, token by token; also of what a filter has left."""
    run = trained(f"{strategy} {precision} --max_epochs 2")
    engine = LocalEngine(lambda: run.strategy.gathered(run.policy), _Tokenizer(), [2])
    samples = make_samples()
    requests = [Request(prompt, seeds=(1, 2, 3, 4)) for prompt in dict.fromkeys(s.prompt for s in samples)]
    made = engine.generate(requests, Sampling(8, temperature=0.8, **filters), at_once=3)
    found = [g for generations in made for g in generations]
    rollouts = [
        replace(
            as_rollout(replace(sample, response=generation.response_ids, logprobs=generation.logprobs)),
            sampling_mask=generation.sampling_mask,
        )
        for sample, generation in zip(samples, found, strict=True)
    ]
    batch = run.batch(rollouts)
    gap = (batch.old_logprobs - batch.rollout_logprobs).abs() * batch.response_mask
    assert float(gap.max()) < largest
    assert float(gap.sum() / batch.response_mask.sum()) < largest / 3


@each_column
def test_many_micro_batches_are_as_exact_as_one(world, strategy, precision):
    whole, split = (gradient_error(own_strategy(arguments(strategy), world, precision), rows) for rows in (64, 1))
    assert split <= 2 * whole < 2**-7


@each_column
def test_a_gradient_that_is_not_a_number_skips_the_step(world, strategy, precision):
    made = own_strategy(arguments(strategy), world, precision)
    handle = made.prepare(Layer().to(world.device), SGD)
    before = {name: value.detach().clone() for name, value in made.full_params(handle)}
    assert step(made, handle, float("nan")).skipped
    assert all(torch.equal(before[name], value) for name, value in made.full_params(handle))
    assert not step(made, handle).skipped


def test_offloaded_parameters_are_on_the_processor_between_steps(world):
    for strategy, where in (("--fsdp", "cuda"), ("--fsdp --fsdp_cpu_offload", "cpu")):
        made = own_strategy(arguments(strategy), world, "bf16")
        handle = made.prepare(small_model().to(world.device), SGD)
        assert {parameter.device.type for parameter in handle.model.parameters()} == {where}


@pytest.mark.parametrize("strategy", ("--zero_stage 2", "--fsdp"))
def test_a_run_s_console_and_memory(tiny_folder, tmp_path, strategy):
    """No library's noise on the console; the GPU's memory beside the host's."""
    data = f"--pretrain {tiny_folder / 'model'} --prompt_data {tiny_folder / 'train.jsonl'} --reward_fn last_number"
    sizes = "--rollout_batch_size 4 --n_samples_per_prompt 4 --train_batch_size 16 --prompt_max_len 16 --max_len 24"
    free = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "NCCL_DEBUG")}
    words = (
        f"{data} {sizes} {strategy} --max_steps 2 --save_steps 1 --plot_every 0 --save_path {tmp_path / 'out'}".split()
    )
    ended = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words], env=free, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    assert not [noise for noise in NOISE if noise in ended.stdout + ended.stderr]
    for line in (tmp_path / "out/logs/metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert 0 < row["perf/peak_device_memory_gib"] < row["perf/peak_memory_gib"]


ADAM = replace(SGD, name="adamw", learning_rate=1e-3)


def adam_steps(world, flags: str):
    """Three steps of the toy layer in bfloat16."""
    made = own_strategy(arguments(flags), world, "bf16")
    handle = made.prepare(Layer().to(world.device), ADAM)
    for _ in range(3):
        assert not step(made, handle).skipped
    return handle, {name: value.detach().cpu().clone() for name, value in made.full_params(handle)}


def test_fsdp_s_moments_rest_in_pinned_memory_and_change_nothing(world):
    (handle, offloaded), (_, plain) = (adam_steps(world, f"--fsdp {more}") for more in ("--adam_offload", ""))
    (parameter,) = handle.model.parameters()
    moments = [handle.optimizer.state[parameter][name].to_local() for name in ("exp_avg", "exp_avg_sq")]
    assert parameter.to_local().device.type == "cuda"
    assert all(moment.device.type == "cpu" and moment.is_pinned() for moment in moments)
    assert all(torch.equal(offloaded[name], plain[name]) for name in plain)


@pytest.mark.parametrize("stage", (1, 2, 3))
def test_deepspeed_s_masters_and_moments_are_in_host_memory(world, stage):
    (handle, offloaded), (_, plain) = (adam_steps(world, f"--zero_stage {stage} {f}") for f in ("--adam_offload", ""))
    states = handle.optimizer.optimizer.state
    assert {moment.device.type for state in states.values() for moment in state.values() if moment.dim()} == {"cpu"}
    assert {master.device.type for master in states} == {"cpu"}
    assert all(float((offloaded[name] - plain[name]).abs().max()) < 1e-5 for name in plain)


@pytest.mark.parametrize("strategy", ("--zero_stage 2", "--zero_stage 3", "--fsdp"))
def test_an_offloaded_reference_leaves_the_gpu_after_a_pass(world, strategy):
    logits = []
    for more, where in (("--ref_offload", "cpu"), ("", "cuda")):
        made = own_strategy(arguments(f"{strategy} {more}"), world, "bf16")
        handle = made.prepare(small_model().to(world.device, torch.bfloat16).requires_grad_(False), None)
        with torch.no_grad():
            logits.append(handle.module(input_ids=IDS.to(world.device), use_cache=False).logits.float())
        assert {parameter.device.type for parameter in handle.model.parameters()} == {where}
    assert torch.equal(*logits)


def test_stage_3_overlaps_by_itself(world):
    """What DeepSpeed has by default; the flag turns it off."""
    for more, overlaps in (("", True), ("--no-overlap_comm", False)):
        made = own_strategy(arguments(f"--zero_stage 3 {more}"), world, "bf16")
        assert made.prepare(small_model().to(world.device), SGD).module.zero_overlap_comm() == overlaps


@pytest.mark.multi_gpu
@pytest.mark.parametrize("processes", (2, 4))
def test_layouts_over_nccl(tmp_path, processes):
    """As test_layouts.py has them over gloo."""
    if torch.cuda.device_count() < processes:
        pytest.fail(f"it needs {processes} GPUs")
    launch("layouts.py", processes, tmp_path / "found.pt", seconds=600)
    for rank in torch.load(tmp_path / "found.pt"):
        for flags, found in rank.items():
            if not flags.startswith("reference "):
                assert max(found["differences"].values()) < 1e-4, flags
