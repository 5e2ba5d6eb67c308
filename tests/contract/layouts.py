"""What each flag that lays out memory moves, and that the steps stay those of one process in plain PyTorch.

As a script under torchrun, `layouts.py OUT`, it takes the steps of all layouts of its number of processes, and writes
how far the parameters are from the plain loop's and what every rank holds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from launch import run_rank
from policies import arguments, largest_difference, named, own_strategy, small_model
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import Handle, OptimArgs, Strategy
from lightrft.strategy.optimizer import make_optimizer

ROWS, STEPS = 12, 3
IDS = torch.randint(4, 16, (ROWS, 5), generator=torch.Generator().manual_seed(1))
# epsilon is far above the gradients' roundings, which Adam would else make as large as a step
ADAM = OptimArgs("adamw", 1e-3, (0.9, 0.99), 1e-4, 0.01, 0.5, "constant", warmup_steps=0, total_steps=10)
SGD = OptimArgs("sgd", 0.1, (0.9, 0.99), 1e-8, 0.0, 0.0, "constant", warmup_steps=0, total_steps=10)
OPTIMIZERS = {"sgd": SGD, "adamw": ADAM}

OFFLOADED = ("--zero_stage 1 --adam_offload", "--zero_stage 2 --adam_offload", "--zero_stage 3 --adam_offload")
LAYOUTS = {  # by the number of processes
    1: (*OFFLOADED, "--fsdp --adam_offload", "--fsdp --hybrid_shard_size 1"),
    2: (
        *("--fsdp --fsdp_cpu_offload", *OFFLOADED, "--fsdp --adam_offload", "--fsdp --hybrid_shard_size 1"),
        *("--fsdp", "--fsdp --fsdp_reshard step"),
        *("--zero_stage 1 --overlap_comm", "--zero_stage 2 --overlap_comm", "--zero_stage 3 --no-overlap_comm"),
    ),
    3: ("--zero_stage 3 --adam_offload", "--fsdp --adam_offload", "--fsdp --hybrid_shard_size 3"),
    4: (
        "--fsdp --hybrid_shard_size 2",
        "--fsdp --hybrid_shard_size 2 --fsdp_reshard step",
        "--fsdp --hybrid_shard_size 2 --adam_offload",
        "--fsdp --hybrid_shard_size 2 --fsdp_cpu_offload",
        "--zero_stage 3 --zpg 2",
        "--zero_stage 3 --zpg 2 --adam_offload",
        "--zero_stage 3",  # after the others: no group of theirs may be left to it
    ),
}
REFERENCES = {  # how the frozen reference is held
    1: ("--zero_stage 3", "--zero_stage 1 --ref_offload", "--fsdp --ref_offload"),
    2: ("--zero_stage 1", "--zero_stage 3", "--zero_stage 2 --ref_shard_size 2", "--fsdp --ref_shard_size 1"),
    3: ("--zero_stage 2 --ref_shard_size 3 --ref_offload", "--fsdp --fsdp_cpu_offload"),
    4: ("--zero_stage 2 --ref_shard_size 2", "--fsdp --ref_shard_size 2", "--fsdp --hybrid_shard_size 2"),
}


@dataclass(frozen=True)
class Found:
    """Distances of the parameters from the plain loop's after its steps, and from the start; what this rank holds."""

    differences: dict[str, float]
    moved: dict[str, float]
    facts: dict[str, Any]


def loss(model, rows: list[int]) -> Tensor:
    """Rows have weights of their own, so that a row that is lost or counted twice shows."""
    logprobs = model(input_ids=IDS[rows].to(here()), use_cache=False).logits.float().log_softmax(-1)[:, :, 5].mean(1)
    return (-logprobs * (1 + torch.tensor(rows, device=logprobs.device))).sum() / 64


def here() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@cache
def plain(name: str) -> dict[str, Tensor]:
    model = small_model().to(here())
    optimizer = make_optimizer(model.parameters(), OPTIMIZERS[name])
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(model, list(range(ROWS))).backward()
        if most := OPTIMIZERS[name].max_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), most)
        optimizer.step()
    return {key: value.detach().cpu() for key, value in named(model).items()}


@cache
@torch.no_grad()
def plain_logits(name: str) -> Tensor:
    """[5, V], of the last row."""
    model = small_model().to(here())
    model.load_state_dict(plain(name), strict=False)
    return model(input_ids=IDS[-1:].to(here()), use_cache=False).logits[0]


def take_steps(strategy: Strategy, handle: Handle) -> dict[str, Tensor]:
    """Of two micro-batches each, on this rank's rows."""
    world = strategy.world
    mine = list(range(ROWS))[world.rank :: world.size]
    for _ in range(STEPS):
        generate(strategy, handle)
        strategy.backward(handle, loss(handle.module, mine[:2]), last=False)
        if world.size > 1:  # unless it is told otherwise, each rank keeps its share alone between micro-batches
            assert bool(whole_gradients(handle)) == getattr(strategy, "once_a_step", False)
        strategy.backward(handle, loss(handle.module, mine[2:]), last=True)
        assert not strategy.step(handle).skipped
    return {name: value.detach().float().cpu().clone() for name, value in strategy.full_params(handle)}


def whole_gradients(handle: Handle) -> list[Tensor]:
    """What FSDP2 has not spread over the ranks yet."""
    groups = [m._get_fsdp_state()._fsdp_param_group for m in handle.model.modules() if isinstance(m, FSDPModule)]
    parameters = [parameter for group in groups if group is not None for parameter in group.fsdp_params]
    kept = [(getattr(p, "_unsharded_param", None), p.unsharded_accumulated_grad) for p in parameters]
    return [grad for whole, sums in kept for grad in (getattr(whole, "grad", None), sums) if grad is not None]


def generate(strategy: Strategy, handle: Handle) -> Tensor:
    """Passes with whole parameters, as the in-process engine makes them; their logits."""
    whole = [parameter.shape for parameter in small_model().parameters()]
    with torch.no_grad(), strategy.gathered(handle) as model:
        for rows in range(1 + strategy.world.rank):  # ranks need not make as many
            logits = model(input_ids=IDS[[rows, -1]].to(here()), use_cache=False).logits[-1].clone()
        assert [parameter.shape for parameter in model.parameters()] == whole
        assert not any(isinstance(parameter, DTensor) for parameter in model.parameters())
    return logits


def examine(world: World, flags: str) -> Found:
    args, differences, moved, facts = arguments(flags), {}, {}, {}
    for name, optim in OPTIMIZERS.items():
        strategy = own_strategy(args, world, "fp32")
        handle = strategy.prepare(small_model().to(here()), optim)
        after = take_steps(strategy, handle)
        differences[name] = largest_difference(after, plain(name))
        differences[f"{name}, generating"] = float((generate(strategy, handle) - plain_logits(name)).abs().max())
        moved[name] = largest_difference(after, named(small_model()))
    facts = fsdp_facts(strategy, handle) if args.distributed.fsdp else zero_facts(handle)
    return Found(differences, moved, facts)


@dataclass(frozen=True)
class Reference:
    """Distance of its log-probabilities from the plain model's; rows of the embedding here and in all, before and after
    a pass; whether they are kept in host memory; the largest difference of what it hands out."""

    difference: float
    rows: tuple[int, int]
    rows_after: tuple[int, int]
    on_host: bool
    handed_out: float


@torch.no_grad()
def examine_reference(world: World, flags: str) -> Reference:
    strategy = own_strategy(arguments(flags), world, "fp32")
    handle = strategy.prepare(small_model(5).to(here()).requires_grad_(False), None)
    model = small_model(5).to(here())
    mine, before = list(range(ROWS))[world.rank :: world.size], rows_held(handle)
    difference = abs(float(loss(handle.module, mine) - loss(model, mine)))
    after, handed = rows_held(handle), {name: value.cpu() for name, value in strategy.full_params(handle)}
    return Reference(difference, before, after, kept_on_host(handle), largest_difference(handed, named(small_model(5))))


def rows_held(handle: Handle) -> tuple[int, int]:
    weight = handle.model.get_input_embeddings().weight
    return len(weight.to_local() if isinstance(weight, DTensor) else weight), len(weight)


def kept_on_host(handle: Handle) -> bool:
    groups = [module._get_fsdp_state()._fsdp_param_group for module in handle.model.modules() if _is_part(module)]
    return bool(groups) and all(part.offload_to_cpu for group in groups for part in group.fsdp_params)


def _is_part(module: Any) -> bool:
    return isinstance(module, FSDPModule)


def fsdp_facts(strategy: Strategy, handle: Handle) -> dict[str, Any]:
    """Of AdamW, the last."""
    travels = watch_a_step(strategy, handle)
    embedding = handle.model.get_input_embeddings().weight
    assert isinstance(embedding, DTensor)
    moments = handle.optimizer.state[embedding]["exp_avg"]
    return {
        "mesh": tuple(embedding.device_mesh.shape),
        "rows": (len(embedding.to_local()), len(embedding)),
        "moments": (tuple(moments.to_local().shape), moments.to_local().device.type),
        **travels,
    }


def watch_a_step(strategy: Strategy, handle: Handle) -> dict[str, Any]:
    """Of three micro-batches, from a generation to a scoring pass: how often a part's weights are gathered and its
    gradients reduced; which of the three parts, root first, are whole before, between and after, and after the pass;
    how far the logits of that pass are from those of the weights that there are then, and from those before."""
    generate(strategy, handle)
    before, whole = score(handle), [whole_parts(handle)]
    strategy.trained(handle)  # as an average of weights looks at them
    with Counted() as counted:
        for number in range(3):
            strategy.backward(handle, loss(handle.module, [number]), last=number == 2)
            whole.append(whole_parts(handle))
        strategy.step(handle)
    after = score(handle)
    whole.append(whole_parts(handle))
    model = small_model().to(here())
    model.load_state_dict(dict(strategy.full_params(handle)), strict=False)
    moved, stale = (float((after - logits).abs().max()) for logits in (before, score(model)))
    times = tuple(counted.calls[f"c10d.{name}_base_.default"] for name in ("_allgather", "_reduce_scatter"))
    return {"gathered, reduced": times, "whole": whole, "moved": moved, "stale": stale}


class Counted(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **kwargs or {})


def whole_parts(handle: Handle) -> list[bool]:
    return [m._get_fsdp_state()._fsdp_param_group.is_unsharded for m in handle.model.modules() if _is_part(m)]


@torch.no_grad()
def score(model: Any) -> Tensor:
    """A pass without a backward pass; its logits."""
    called = model.module if isinstance(model, Handle) else model
    return called(input_ids=IDS[[-1]].to(here()), use_cache=False).logits.clone()


def zero_facts(handle: Handle) -> dict[str, Any]:
    engine, zero = handle.module, handle.optimizer
    moments = [state["exp_avg"].numel() for state in zero.optimizer.state.values()]
    with torch.no_grad():
        loss(handle.module, [0])
    second = getattr(handle.model.get_input_embeddings().weight, "ds_secondary_tensor", None)
    return {
        "second copy": None if second is None else second.numel(),
        "overlaps": engine.zero_overlap_comm(),
        "stage": engine.zero_optimization_stage(),
        "on the host": getattr(zero, "cpu_offload", None) or getattr(zero, "offload_optimizer", False),
        "moments": sum(moments),
        "optimizer": type(zero.optimizer).__name__,
    }


def main(out: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    found = {flags: asdict(examine(world, flags)) for flags in LAYOUTS[world.size]}
    found |= {f"reference {flags}": asdict(examine_reference(world, flags)) for flags in REFERENCES[world.size]}
    everyone: list[Any] = [None] * world.size
    dist.all_gather_object(everyone, found)
    if world.rank == 0:
        torch.save(everyone, out)
    leave_world()


if __name__ == "__main__":
    run_rank(main)
