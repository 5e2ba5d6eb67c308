"""`--gradient_checkpointing`: under every strategy layers run twice in the update, and once anywhere else."""

from __future__ import annotations

import pytest
import torch
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from kernel_calls import KernelCalls
from policies import EACH, as_rollout, make_samples, prepare

from lightrft.models import recompute

ROWS = [as_rollout(sample, row % 4) for row, sample in enumerate(make_samples()[:4])]


@pytest.mark.parametrize("strategy", EACH)
def test_layers_run_twice_in_the_update_alone(world, strategy):
    run, calls = prepare(world, f"{strategy} --gradient_checkpointing --micro_train_batch_size 2"), []
    model = run.policy.model
    model.model.layers[1].self_attn.register_forward_hook(lambda *_: calls.append("layer"))
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append("head"))
    batch = run.batch(ROWS)
    with run.strategy.gathered(run.policy) as whole, torch.no_grad():
        whole(input_ids=batch.input_ids, use_cache=False)
    assert calls == ["layer", "head"]
    calls.clear()
    run.learn(batch)
    assert calls == ["layer", "head", "layer"] * 2


@pytest.mark.parametrize("layout", ["--no-share_prompts", "--share_prompts"])
@pytest.mark.parametrize("strategy", EACH)
def test_attention_that_is_kept_runs_once(world, strategy, layout):
    """Of two layers and two micro-batches: a kernel for padded rows, and three for shared ones, whose first response
    continues the prompt, and whose second is a block of its own and sees the prompt in another."""
    more = f"{layout} --gradient_checkpointing --micro_train_batch_size 2"
    ran = {}
    for granularity in ("full", "selective"):
        run = prepare(world, f"{strategy} {more} --recompute_granularity {granularity}")
        batch = run.batch(ROWS)
        with KernelCalls() as calls:
            run.learn(batch)
        ran[granularity] = calls.named("attention")
    once = 2 * 2 * (1 if layout == "--no-share_prompts" else 3)
    assert ran == {"full": 2 * once, "selective": once}


@pytest.mark.parametrize("strategy", EACH)
def test_inputs_of_layers_are_moved_where_a_flag_asks_for_it(world, strategy, monkeypatch):
    moved, to_host = [], recompute._to_host
    monkeypatch.setattr(recompute, "_to_host", lambda tensor: moved.append(tensor.shape[-1]) or to_host(tensor))
    for flag, layers in (("", 0), ("--activation_offload", 2)):
        run = prepare(world, f"{strategy} --gradient_checkpointing {flag} --micro_train_batch_size 2")
        run.learn(run.batch(ROWS))
        assert moved == [64] * 2 * layers  # of two micro-batches


def test_deepspeed_keeps_no_list_of_layers_that_were_left_early(world):
    run = prepare(world, "--zero_stage 3 --gradient_checkpointing --micro_train_batch_size 2")
    depth = len(FWD_MODULE_STACK)
    run.learn(run.batch(ROWS))
    assert len(FWD_MODULE_STACK) == depth
