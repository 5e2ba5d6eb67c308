"""A model's state under every layout: saved by so many processes, loaded by as many or others, under any strategy.

As a script under torchrun, `states.py FOLDER`, it saves every layout, loads each again, and loads into each layout
what one process less has saved under another. A run is three steps of AdamW; the fourth shows what was loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from launch import run_rank
from policies import ALONE, arguments, half_frozen, load, own_strategy, save, small_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from lightrft.models.critic import ValueHead, ValueModel
from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import Handle, OptimArgs, Strategy
from lightrft.strategy.one_process import OneProcess
from lightrft.strategy.state import AVERAGE, WEIGHT, StateReader
from lightrft.update.ema import MovingAverage

ADAM = OptimArgs("adamw", 1e-2, (0.9, 0.99), 1e-8, 0.01, 0.5, "linear", warmup_steps=2, total_steps=10)
ROWS = torch.tensor([[5, 7, 9, 4], [6, 15, 8, 11], [4, 4, 12, 9], [13, 5, 6, 7], [8, 8, 10, 14], [9, 12, 5, 15]])
STEPS = 3


@dataclass(frozen=True)
class Layout:
    """half: every second parameter does not train, and there is a buffer. A critic has a head of a single row."""

    strategy: str
    precision: str = "fp32"
    model: str = "policy"

    def __str__(self) -> str:
        return f"{self.strategy.replace('--', '').replace(' ', '')}-{self.precision}-{self.model}"


SHARDED = ("--fsdp", "--zero_stage 1", "--zero_stage 2", "--zero_stage 3")
ON_HOST = [
    Layout("--fsdp --fsdp_cpu_offload"),
    Layout("--fsdp --adam_offload"),
    Layout("--zero_stage 2 --adam_offload"),
]
APART = Layout("--fsdp --use_mp_opt", "bf16")
COPIED = Layout("--fsdp --hybrid_shard_size 1", "bf16")  # each process has all
POLICIES = [
    *(Layout(strategy) for strategy in SHARDED),
    *ON_HOST,
    *(Layout(strategy, "bf16") for strategy in SHARDED),
    COPIED,
    APART,
    Layout(ALONE),
    Layout("--zero_stage 3 --adam_offload", "bf16"),
]
TWICE = Layout("--zero_stage 3 --zpg {n}", model="half")  # each process has a share of a second copy, too
HALVES = [
    TWICE,
    Layout("--fsdp", model="half"),
    replace(APART, model="half"),
    *(Layout(f"--zero_stage {n}", "bf16", "half") for n in (1, 2, 3)),
]
CRITICS = [Layout(strategy, model="critic") for strategy in ("--zero_stage 3", "--fsdp", "--zero_stage 1")]
LAYOUTS = [*POLICIES, *HALVES, *CRITICS]


def others(layout: Layout) -> list[Layout]:
    """Of the same model, beginning behind it."""
    alike = [other for other in LAYOUTS if other.model == layout.model]
    place = alike.index(layout)
    return alike[place + 1 :] + alike[:place]


def make(model: str, seed: int) -> torch.nn.Module:
    if model == "policy":
        return small_model(seed)
    if model == "critic":
        head = ValueHead(64, 1)
        torch.nn.init.normal_(head.weight, std=0.1, generator=torch.Generator().manual_seed(seed))
        return ValueModel(small_model(seed).model, head, "score").eval()
    half = half_frozen(seed)
    half.register_buffer("seen", torch.arange(5) + seed)
    return half


@dataclass
class Run:
    """A prepared model, whose gradient is the same on any number of ranks: each has its share of ROWS."""

    strategy: Strategy
    handle: Handle
    average: MovingAverage

    @classmethod
    def of(cls, layout: Layout, world: World, seed: int) -> Run:
        strategy = own_strategy(arguments(layout.strategy.format(n=world.size)), world, layout.precision)
        handle = strategy.prepare(make(layout.model, seed).to(world.device), ADAM)
        return cls(strategy, handle, MovingAverage(strategy, handle, 0.75, Collectives(world, everyone=True)))

    def step(self, times: int = 1) -> None:
        world = self.strategy.world
        for _ in range(times):
            ids = ROWS[world.rank :: world.size].to(world.device)
            outputs = self.handle.module(input_ids=ids, use_cache=False).logits.float()
            loss = -outputs.log_softmax(-1)[..., 5] if outputs.shape[-1] > 1 else (outputs - 1).square()
            self.strategy.backward(self.handle, loss.sum() / ROWS.numel(), last=True)
            assert not self.strategy.step(self.handle).skipped
            self.average.update()

    def outputs(self) -> Tensor:
        """Of the weights that are computed with."""
        with torch.no_grad(), self.strategy.gathered(self.handle) as model:
            return model(input_ids=ROWS.to(self.strategy.world.device), use_cache=False).logits.float().cpu()

    def whole(self) -> dict[str, Tensor]:
        """Weights and moments, gathered by the libraries themselves, and the weights' average."""
        found = {f"{WEIGHT}/{name}": value for name, value in self.strategy.full_params(self.handle)}
        every = [*found.items(), *self._moments(), *self._average()]
        return {name: value.detach().cpu().clone() for name, value in every}

    def _average(self) -> Iterator[tuple[str, Tensor]]:
        trained = {name for name, parameter in self.handle.model.named_parameters() if parameter.requires_grad}
        yield from ((f"{AVERAGE}/{name}", value) for name, value in self.average.params() if name in trained)

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        link = getattr(self.handle.optimizer, "_lazy_init_hp_params_optimizer_state", lambda: None)
        link()
        for name, parameter in self.handle.model.named_parameters():
            for kind in ("exp_avg", "exp_avg_sq") if parameter.requires_grad else ():
                yield f"{kind}/{name}", self._moment(name, parameter, kind)

    def _moment(self, name: str, parameter: torch.nn.Parameter, kind: str) -> Tensor:
        if isinstance(self.strategy, OneProcess):
            return self.handle.optimizer.state[parameter][kind]
        if isinstance(parameter, DTensor):
            stepped = self.handle.masters.get(name, parameter)
            return self.handle.optimizer.state[stepped][kind].full_tensor()
        return self.strategy.deepspeed.utils.safe_get_full_optimizer_state(parameter, kind)


def read_whole(folder: Path) -> dict[str, Tensor]:
    """All that the ranks' files hold."""
    reader = StateReader(folder)
    found = {}
    for name, shape in reader.shapes.items():
        for kind in (WEIGHT, AVERAGE, "exp_avg", "exp_avg_sq"):
            if reader.has(kind, name):
                found[f"{kind}/{name}"] = reader.read(kind, name, 0, torch.Size(shape).numel()).view(shape)
    return found


def save_layout(layout: Layout, world: World, folder: Path) -> None:
    """`state/`, and beside it what the run was at that time and one step later."""
    run, place = Run.of(layout, world, seed=0), folder / f"{world.size}-{layout}"
    (place / "state").mkdir(parents=True, exist_ok=True)
    run.step(STEPS)
    now = {**run.whole(), "outputs": run.outputs()}
    save(run.strategy, run.handle, place / "state")
    run.step()
    later = {**run.whole(), "outputs": run.outputs()}
    if world.rank == 0:
        save_file(now, place / "now.safetensors")
        save_file(later, place / "later.safetensors")
    assert same(read_whole(place / "state"), now, but="outputs"), f"what {layout} wrote is not what it was"


def same(left: dict[str, Tensor], right: dict[str, Tensor], but: str = "") -> bool:
    """To the bit."""
    names = right.keys() - {but}
    return left.keys() == names and all(torch.equal(left[name], right[name].to(left[name].dtype)) for name in names)


def load_layout(run: Run, layout: Layout, saved: Path, again: Path) -> None:
    """What was saved is there to the bit, whatever was before; the next step is that of the run that saved."""
    now, later = (load_file(saved / f"{name}.safetensors") for name in ("now", "later"))
    load(run.strategy, run.handle, saved / "state")
    assert same(run.whole(), now, but="outputs"), "weights, moments and average"
    again.mkdir(exist_ok=True)
    save(run.strategy, run.handle, again)
    assert same(read_whole(again), now, but="outputs"), "what is saved again"
    assert set(StateReader(again).steps.values()) == {STEPS} and run.handle.scheduler.last_epoch == STEPS
    before = run.outputs()
    run.step()
    after = {**run.whole(), "outputs": run.outputs()}
    if saved.name == f"{run.strategy.world.size}-{layout}":
        assert torch.equal(before, now["outputs"]) and same(after, later), "the next step's bits"
        return
    exact = layout.precision == "fp32" and "fp32" in saved.name
    assert distance(before, now["outputs"]) < (1e-6 if exact else 1e-2), "the weights that are computed with"
    assert distance(gradient(now, after), gradient(now, later)) < (1e-6 if exact else 0.1), "the gradient"


def gradient(now: dict[str, Tensor], after: dict[str, Tensor]) -> Tensor:
    """Of a step, all in one: 10 x exp_avg after it, less 9 x exp_avg before it, by Adam's beta."""
    names = [name for name in now if name.startswith("exp_avg/")]
    return torch.cat([(10 * after[name] - 9 * now[name]).flatten() for name in names])


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def check(layout: Layout, world: World, sources: list[str], folder: Path) -> None:
    """sources: names of folders; the last ones are loaded into what the first ones have made."""
    run = Run.of(layout, world, seed=9)
    for number, source in enumerate(sources):
        try:
            load_layout(run, layout, folder / source, folder / f"again-{world.size}-{layout}-{number}")
        except Exception as error:
            raise AssertionError(f"{world.size}-{layout} from {source}") from error


def main(folder: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    for layout in LAYOUTS:
        save_layout(layout, world, Path(folder))
    fewer = world.size - 1
    for place, layout in enumerate(LAYOUTS):
        candidates = others(layout)
        other = candidates[place % len(candidates)]
        check(layout, world, [f"{world.size}-{layout}", f"{fewer}-{other}"], Path(folder))
    leave_world()


if __name__ == "__main__":
    run_rank(main)
