"""Turns of the loop on one process or several: each rank has its own rows and all of them take the same steps.

As a script under torchrun, `ranks.py OUT CRITIC`, it runs CASES on its rank's rows and writes what came out, and what
each rank says of a run that cannot learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from launch import run_rank
from policies import (
    Trained,
    as_rollout,
    half_frozen,
    make_samples,
    off_policy,
    padded_rows,
    prepare,
    small_model,
    with_mask,
)

from lightrft.args.estimators import estimator_names
from lightrft.batch import Batch
from lightrft.build.update import make_advantages
from lightrft.errors import RunFailed
from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import Handle, OptimArgs, StepReport
from lightrft.update.health import Skips
from lightrft.update.metrics import MetricSums

# Rows of three groups of four, dealt unevenly: groups lie across ranks, and of three ranks the last has only the
# invalid sample, of which nothing is trained.
DEALT = {
    1: [range(12)],
    2: [(0, 3, 4, 5, 6, 9, 11), (1, 2, 7, 8, 10)],
    3: [(0, 2, 5, 8, 10), (1, 3, 4, 6, 7, 11), (9,)],
}
# Three scoring passes of four rows on one rank, and one or none on the others.
SKEWED = {1: [range(12)], 2: [range(12), ()], 3: [(), (0, 1, 3, 4, 5, 6, 8, 9, 10, 11), (2, 7)]}
# SGD without clipping, two epochs of three optimizer steps, every term of the loss in play.
TURN = """--train_batch_size 4 --max_epochs 2 --init_kl_coef 0.05 --actor_learning_rate 0.05 --critic_learning_rate 0.05
 --is_correction token_truncate --entropy_coef 0.01 --advantage_clip 1.4
 --reward_running_norm --reward_running_norm_minus_mean --reward_clip 0.9"""


@dataclass(frozen=True)
class Case:
    estimator: str
    strategy: str = "float64"
    micro: int = 2
    more: str = ""
    dealt: str = "uneven"
    half: bool = False  # of the policy's parameters do not train
    model: str = "small"

    @property
    def flags(self) -> str:
        strategy = "--zero_stage 1" if self.strategy == "float64" else self.strategy
        given = f"{TURN} {strategy} --advantage_estimator {self.estimator} --micro_train_batch_size {self.micro}"
        return f"{given} {self.more}"


# values are float32 numbers: at the others' rate six steps would feed their roundings back
SLOWLY = {"gae": "--actor_learning_rate 0.005 --critic_learning_rate 0.005"}
KINDS = ("float64", "--fsdp", "--zero_stage 1")
EVERY = [Case(name, kind, more=SLOWLY.get(name, "")) for name in estimator_names() for kind in KINDS]
OTHERS = [Case("gae", "--zero_stage 2"), Case("gae", "--zero_stage 3", 1), Case("cpgd", "--zero_stage 3")]
MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "prompt-mean-token-mean")
# a sum over tokens has a larger gradient: at the others' rate the policy would run off, and roundings with it
RATES = {"seq-mean-token-sum": " --actor_learning_rate 0.01"}
AGGREGATED = [Case("group_norm", more=f"--loss_agg_mode {mode}{RATES.get(mode, '')}", micro=1) for mode in MODES]
MASKED = [Case("reinforce", more="--high_entropy_token_ratio 0.3"), Case("cpgd", more="--high_entropy_token_ratio 0.3")]
SHAPED = [
    Case("group_norm", more=f"--overlong_buffer --overlong_buffer_len 4 {filtered}")
    for filtered in ("", "--overlong_filter")
]
# without a KL term and an entropy bonus rows without advantage are not run, on some ranks more than on others
ALONE = "--init_kl_coef 0 --entropy_coef 0"
IDLE = [Case(name, more=ALONE) for name in ("group_norm", "gspo", "gmpo")] + [Case("group_norm", "--fsdp", 1, ALONE)]
HOT = [Case("reinforce", more="--use_fire"), Case("group_norm", more="--use_fire --fire_mask_first_token")]
FROZEN = [Case("gae", kind, more="--freezing_actor_steps 1") for kind in ("--fsdp", "--zero_stage 1")]
SHARDED = ("--fsdp", "--zero_stage 1", "--zero_stage 3")
FEW = "--micro_rollout_batch_size 1"
UNEQUAL = [Case("gae", kind, 1, f"{SLOWLY['gae']} {FEW}", "skewed") for kind in SHARDED]
UNEQUAL += [Case(name, "--fsdp", 2, FEW, "skewed") for name in ("group_norm", "cpgd", "reinforce_baseline")]
UNEQUAL += [Case("reinforce", kind, 2, f"{FEW} --high_entropy_token_ratio 0.3", "skewed") for kind in SHARDED]
UNEQUAL += [Case("group_norm", kind, 2, f"{FEW} {ALONE} --overlong_filter", "skewed") for kind in SHARDED]
REPLAYED = [Case("group_norm", kind, more="--replay_sampling_mask") for kind in KINDS]
REPLAYED += [Case("group_norm", "--fsdp", 2, f"{FEW} --replay_sampling_mask", "skewed")]
HALVES = [Case("group_norm", kind, half=True) for kind in ("--fsdp", "--zero_stage 2", "--zero_stage 3")]
CASES = [*UNEQUAL, *EVERY, *OTHERS, *AGGREGATED, *MASKED, *SHAPED, *IDLE, *HOT, *FROZEN, *REPLAYED, *HALVES]

# Configurations beside the small model's own: more heads than those of keys, with which 3 does not go; an untied head.
MODELS: dict[str, dict] = {
    "small": {},
    "one key head": {"num_key_value_heads": 1},
    "six heads": {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32},
    "untied": {"tie_word_embeddings": False},
}


class Float64:
    """Plain PyTorch, for numbers without strategies' roundings: the step sums gradients over processes; SGD."""

    def __init__(self, world: World) -> None:
        self.world, self.ranks, self.everyone = world, Collectives(world), Collectives(world, everyone=True)

    def prepare(self, model, optim: OptimArgs | None, weights=None) -> Handle:
        return Handle(model.double(), model, optim=optim)

    def backward(self, handle: Handle, loss: torch.Tensor, *, last: bool) -> None:
        loss.backward()

    @torch.no_grad()
    def step(self, handle: Handle) -> StepReport:
        assert handle.optim is not None
        rate, trained = handle.optim.learning_rate, [p for p in handle.model.parameters() if p.requires_grad]
        grads = self.everyone.reduce({str(place): p.grad for place, p in enumerate(trained)})
        for parameter, grad in zip(trained, grads.values(), strict=True):
            parameter -= rate * grad
            parameter.grad = None
        norm = torch.stack([grad.square().sum() for grad in grads.values()]).sum().sqrt()
        return StepReport(float(norm), rate, skipped=False)

    @contextmanager
    def gathered(self, handle: Handle) -> Iterator:
        yield handle.model

    def full_params(self, handle: Handle) -> Iterator:
        yield from handle.model.named_parameters()


def turn(world: World, case: Case, critic: str) -> tuple[dict, dict, dict]:
    """Parameters of policy and critic before and after one turn of the loop, and the metrics, equal on all ranks."""
    more = f" --critic_pretrain {critic}" if case.estimator == "gae" else ""
    make = partial(small_model, **MODELS[case.model])
    strategy = Float64(world) if case.strategy == "float64" else None
    model = half_frozen() if case.half else None
    run = prepare(world, case.flags + more, reference_seed=3, model=model, strategy=strategy, make=make)
    dealt = SKEWED if case.dealt == "skewed" else DEALT
    before, mine = parameters(run), list(dealt[world.dp_size][world.dp_rank])
    batch, metrics = own_batch(run, mine)
    for part in run.updater.partition(batch, 1):
        run.updater.step(batch, part)
    return before, parameters(run), {**metrics, **run.updater.report().metrics}


def own_batch(run: Trained, mine: list[int]) -> tuple[Batch, dict[str, float]]:
    """This rank's rows, off policy, with their advantages."""
    samples = make_samples()
    width = max((len(samples[row].prompt) + len(samples[row].response) for row in mine), default=0)
    old, _ = off_policy(samples, 32)
    old = padded_rows([old[row] for row in mine], [samples[row] for row in mine], width)
    rollouts = [as_rollout(samples[row], row % 4) for row in mine]
    if run.args.engine.replay_sampling_mask:
        rollouts = [with_mask(rollout) for rollout in rollouts]
    return run.shaped(rollouts, old_logprobs=old)


def parameters(run: Trained) -> dict[str, torch.Tensor]:
    handles = {"policy": run.policy} | ({"critic": run.updater.critic.model.handle} if run.updater.critic else {})
    return {
        f"{kind}.{name}": value.detach().double().clone()
        for kind, handle in handles.items()
        for name, value in as_held(run, handle)
    }


def as_held(run: Trained, handle: Handle) -> Iterator[tuple[str, torch.Tensor]]:
    """Adapters apart from the weights that they change."""
    return run.strategy.full_params(handle) if handle.adapters is None else run.strategy.tensors(handle)


def told(world: World) -> list[str]:
    """What this rank says: of rewards that differ from rank to rank alone, then of numbers that are NaN on rank 1."""
    run = prepare(world, "--advantage_estimator reinforce", strategy=Float64(world))
    batch, _ = own_batch(run, list(DEALT[world.size][world.rank]))
    ranks, index, said, number = run.strategy.ranks, batch.index, [], float("nan") if world.rank == 1 else 0.0
    stage = make_advantages(run.args, ranks, run.updater.estimator, run.updater.loss.kl)
    stage(batch.filled(index=index.with_rewards(index.owner.astype(float))))
    said += stage.health.remarks({}, 1)
    huge, old = index.with_rewards(index.rewards * 0 + 1e39), torch.full_like(batch.rollout_logprobs, number)
    with fails(said):
        stage(batch.filled(index=huge, old_logprobs=old))
    skips, sums = Skips("policy", "--actor_learning_rate"), MetricSums()
    sums.add("loss/policy", torch.tensor(number))
    with fails(said):
        for at in range(1, 12):
            failure = skips.note(StepReport(1.0, 1e-3, skipped=True), at, sums, ranks)
            if failure is not None:
                raise failure
    return said


@contextmanager
def fails(said: list[str]) -> Iterator[None]:
    try:
        yield
    except RunFailed as failed:
        said.append(str(failed))


def main(out: str, critic: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    found = [turn(world, case, critic) for case in CASES]
    everyone = [None] * world.size
    dist.all_gather_object(everyone, ([metrics for *_, metrics in found], told(world)))
    if world.rank == 0:
        metrics, said = zip(*everyone, strict=True)
        torch.save({"parameters": [after for _, after, _ in found], "metrics": metrics, "said": said}, out)
    leave_world()


if __name__ == "__main__":
    run_rank(main)
