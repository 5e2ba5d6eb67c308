"""Every strategy in float32, bfloat16 and float16: how exact gradients are, and what a broken one leaves alone.

float16 is tried on the processor here, which computes it slowly; test_gpu.py has it where it belongs.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from policies import (
    STRATEGIES,
    arguments,
    check_that_it_goes_on,
    largest_difference,
    load,
    named,
    own_strategy,
    plain_steps,
    save,
    settings,
    small_model,
)
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

from lightrft.strategy import sharding
from lightrft.strategy.base import Handle, OptimArgs, StepReport, Strategy

PRECISIONS = ("fp32", "bf16", "fp16")
COLUMNS = [
    (strategy, precision)
    for strategy in STRATEGIES
    for precision in PRECISIONS
    if precision != "fp16" or "--fsdp" not in strategy  # refused: it has no loss scaling
]
COLUMNS += [("--zero_stage 2 --adam_offload", "bf16"), ("--zero_stage 2 --adam_offload", "fp16")]
COLUMNS += [("--zero_stage 3 --adam_offload", "bf16"), ("--fsdp --adam_offload", "bf16")]
COLUMNS += [("--fsdp --use_mp_opt", "bf16"), ("--fsdp --use_mp_opt --fsdp_cpu_offload", "bf16")]
each_column = pytest.mark.parametrize(("strategy", "precision"), COLUMNS)
each_half = pytest.mark.parametrize(("strategy", "precision"), [c for c in COLUMNS if c[1] != "fp32"])
ROWS, RATE = 64, 16.0
SGD = OptimArgs("sgd", RATE, (0.9, 0.99), 1e-8, 0.0, 0.0, "constant", warmup_steps=0, total_steps=10)
ADAM = OptimArgs("adamw", 1e-2, (0.9, 0.99), 1e-8, 0.01, 0.5, "linear", warmup_steps=2, total_steps=10)
# A gradient entry is rounded to 2^-9 or 2^-12 of itself at least once, and logits before it.
GRADIENT_ERROR = {"fp32": 1e-6, "bf16": 2e-2, "fp16": 3e-3}


class Layer(nn.Module):
    """x W^T; the gradient of sum(c * x W^T) / ROWS is c^T x / ROWS, which needs no other pass to know."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8, bias=False)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(3))
        self.layer.weight.data = representable(self.layer.weight.data)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self.layer.weight.dtype)).float()


def representable(value: Tensor) -> Tensor:
    """Rounded to what both 16-bit formats hold, so that no precision starts elsewhere."""
    return value.half().bfloat16().float()


def parameters(strategy: Strategy, handle: Handle) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in strategy.full_params(handle)}


def data() -> tuple[Tensor, Tensor]:
    """x [64, 16] and c [64, 8]; every row pulls the same way, so that sums grow and their roundings with them."""
    draw = torch.Generator().manual_seed(0)
    x, c = torch.randn(ROWS, 16, generator=draw) + 2, torch.randn(ROWS, 8, generator=draw).abs() / 16
    return representable(x), representable(c)


def gradient_error(strategy: Strategy, rows: int) -> float:
    """Of one step of SGD over micro-batches of so many rows, relative to the gradient in float64."""
    (x, c), handle = data(), strategy.prepare(Layer().to(strategy.world.device), SGD)
    before = parameters(strategy, handle)["layer.weight"]
    for start in range(0, ROWS, rows):
        part = slice(start, start + rows)
        loss = (handle.module(x[part].to(strategy.world.device)) * c[part].to(strategy.world.device)).sum() / ROWS
        strategy.backward(handle, loss, last=start + rows == ROWS)
    assert not strategy.step(handle).skipped
    found = (before.double() - parameters(strategy, handle)["layer.weight"].double()) / RATE
    exact = c.double().T @ x.double() / ROWS
    return float((found - exact).norm() / exact.norm())


@each_column
def test_many_micro_batches_are_as_exact_as_one(world, strategy, precision):
    whole, split = (gradient_error(own_strategy(arguments(strategy), world, precision), rows) for rows in (ROWS, 1))
    assert split <= 2 * whole
    assert whole < {"fp32": 1e-6, "bf16": 2**-9, "fp16": 2**-12}[precision]


@each_column
def test_one_step_is_close_to_the_plain_step(trained, rollouts, samples, strategy, precision):
    """The whole gradient, through the real loss, however the rows are split."""
    model = small_model()
    for micro in (1, 12):
        run = trained(f"{strategy} --micro_train_batch_size {micro}", precision=precision)
        batch, before = run.batch(rollouts), run.parameters()
        if micro == 1:
            plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0)
        assert run.learn(batch)["update/skipped_steps"] == 0
        wanted = {name: value - before[name] for name, value in named(model).items()}
        found = {name: value - before[name] for name, value in run.parameters().items()}
        assert distance(found, wanted) < GRADIENT_ERROR[precision] * length(wanted)


def length(tensors: dict[str, Tensor]) -> float:
    return float(torch.stack([value.double().square().sum() for value in tensors.values()]).sum().sqrt())


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    return length({name: left[name] - right[name] for name in right})


def step(strategy: Strategy, handle: Handle, scale: float = 1.0) -> StepReport:
    """Two micro-batches of the toy; `scale` multiplies the first one's loss."""
    x, c = (tensor.to(strategy.world.device) for tensor in data())
    for part, weight in ((slice(0, 32), scale), (slice(32, 64), 1.0)):
        strategy.backward(handle, weight * (handle.module(x[part]) * c[part]).sum() / ROWS, last=part.stop == ROWS)
    return strategy.step(handle)


@each_column
@pytest.mark.parametrize("broken", (float("nan"), float("inf")))
def test_a_gradient_that_is_not_finite_touches_nothing(world, strategy, precision, broken):
    """Parameters, moments and schedule, which the next good steps show: they are those of a run that never broke."""
    made = own_strategy(arguments(strategy), world, precision)
    handle, spared = (made.prepare(Layer().to(world.device), ADAM) for _ in range(2))
    for _ in range(2):
        assert step(made, handle) == step(made, spared)
    before = parameters(made, handle)
    report = step(made, handle, broken)
    assert report.skipped and not math.isfinite(report.grad_norm)
    assert largest_difference(parameters(made, handle), before) == 0
    for _ in range(2):
        good, wanted = step(made, handle), step(made, spared)
        assert (good.skipped, good.lr) == (False, wanted.lr)
        assert good.grad_norm == pytest.approx(wanted.grad_norm, rel=1e-6)
    assert largest_difference(parameters(made, handle), parameters(made, spared)) == 0
    assert largest_difference(parameters(made, handle), before) > 1e-3


@each_half
def test_weights_finer_than_the_precision_are_kept(world, strategy, precision):
    """What is handed out is float32: what came in to the bit, then with steps far below a 16-bit unit added up."""
    made = own_strategy(arguments(strategy), world, precision)
    handle = made.prepare(small_model().to(world.device), replace(SGD, learning_rate=1e-6))
    given = named(small_model())
    assert {value.dtype for value in parameters(made, handle).values()} == {torch.float32}
    assert largest_difference(parameters(made, handle), given) == 0
    computed, ids = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision], torch.tensor([[5, 7, 9]])
    with made.gathered(handle) as model:
        hidden = model.get_input_embeddings()(ids.to(world.device))
    assert torch.equal(hidden[0].cpu().to(computed), given["model.embed_tokens.weight"][ids[0]].to(computed))


@each_half
def test_saved_and_loaded_bits(trained, rollouts, strategy, precision, tmp_path):
    """As test_handles.py has it in float32."""
    flags = f"{strategy} --optimizer adamw --actor_learning_rate 1e-2 --lr_scheduler linear --lr_warmup_steps 2"
    run, other = (trained(flags, seed=seed, precision=precision) for seed in (0, 9))
    check_that_it_goes_on(run, other, run.batch(rollouts), tmp_path)


@each_column
def test_gradients_are_clipped_as_the_flags_of_the_resumed_run_say(trained, rollouts, strategy, precision, tmp_path):
    """A step of SGD at rate 1 is as long as --max_norm lets it be."""
    run = trained(f"{strategy} --max_norm 0.05", precision=precision)
    save(run.strategy, run.policy, tmp_path)
    other = trained(f"{strategy} --max_norm 0.02", precision=precision)
    load(other.strategy, other.policy, tmp_path)
    before = other.parameters()
    other.learn(other.batch(rollouts))
    assert distance(other.parameters(), before) == pytest.approx(0.02, rel=1e-3)


def test_strategies_agree_in_bfloat16(trained, rollouts):
    """Adam's steps over two turns of the loop, from the same float32 weights."""
    ends = []
    for strategy in STRATEGIES:
        run = trained(f"{strategy} --optimizer adamw --actor_learning_rate 1e-3 --max_norm 1", precision="bf16")
        start = run.parameters()
        for number in (1, 2):
            run.learn(run.batch(rollouts), number)
        ends.append({name: value - start[name] for name, value in run.parameters().items()})
    for other in ends[1:]:
        assert distance(other, ends[0]) < 0.02 * length(ends[0])


def test_masters_apart_leave_16_bits_to_the_shards(trained, rollouts):
    """The optimizer has no shard, and the masters every one; rotary frequencies stay as they are."""
    run = trained("--fsdp --use_mp_opt --optimizer adamw", precision="bf16")
    run.learn(run.batch(rollouts))
    handle, shards = run.policy, dict(run.policy.model.named_parameters())
    assert {p._local_tensor.dtype for p in shards.values()} == {torch.bfloat16}
    assert {p._local_tensor.dtype for p in handle.masters.values()} == {torch.float32}
    assert handle.masters.keys() == shards.keys()
    stepped = handle.optimizer.param_groups[0]["params"]
    assert {id(p) for p in stepped} == {id(p) for p in handle.masters.values()}
    assert {buffer.dtype for buffer in handle.model.buffers()} == {torch.float32}


def test_offloaded_parameters_live_on_the_processor(world, monkeypatch):
    """Here everything does; so what fully_shard is told is looked at, and test_gpu.py looks at the parameters."""
    told = []
    real = sharding.fully_shard
    monkeypatch.setattr(sharding, "fully_shard", lambda module, **how: told.append(how) or real(module, **how))
    for strategy, policy in (("--fsdp", OffloadPolicy), ("--fsdp --fsdp_cpu_offload", CPUOffloadPolicy)):
        told.clear()
        own_strategy(arguments(strategy), world).prepare(small_model(), SGD)
        assert len(told) == 3 and {type(how["offload_policy"]) for how in told} == {policy}
