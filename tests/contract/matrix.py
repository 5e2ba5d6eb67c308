"""Every strategy on one, two and three ranks, with everything that a run may switch on: gradients and AdamW's steps.

A further setting is a line in SETTINGS, and in test_matrix.py what plain PyTorch makes of it, where that is new.
As a script under torchrun, `matrix.py OUT CRITIC`, it runs all cases of its number of ranks and writes what came out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from launch import run_rank
from plain import Sample
from plain_critic import GAE
from policies import ALONE, Trained, as_rollout, make_samples, prepare, small_model, with_lora, with_qlora
from ranks import DEALT, MODELS, parameters

from lightrft.models import products
from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world

Tensors = dict[str, torch.Tensor]
STRATEGIES = ("--zero_stage 1", "--zero_stage 2", "--zero_stage 3", "--fsdp")
RANKS = (1, 2, 3)


@dataclass(frozen=True)
class Setting:
    """What is switched on beside the strategy. of: the strategies, and ranks: their numbers, where it can be.

    rounds: of the twelve samples; ten have 70 rows that move. model: of MODELS. sp_size: processes that share a
    sequence. least: elements of a weight that oneDNN multiplies by.
    """

    name: str
    flags: str = ""
    reference_seed: int | None = None
    rounds: int = 1
    model: str = "small"
    sp_size: int = 1
    least: int = products.LEAST
    of: tuple[str, ...] = STRATEGIES
    ranks: tuple[int, ...] = RANKS

    def make(self, seed: int = 0):
        make = with_qlora if self.in_4_bits else with_lora if self.has_lora else small_model
        return make(seed, **MODELS[self.model])

    @property
    def in_4_bits(self) -> bool:
        return "QLoRA" in self.name

    @property
    def has_lora(self) -> bool:
        return "LoRA" in self.name

    @property
    def half(self) -> bool:
        return "--bf16" in self.flags

    @property
    def micros(self) -> tuple[int, ...]:
        """Rows of a micro-batch: each alone, and all that one rank has together."""
        return (1, 120) if self.half else (3,)


BETA = 0.8
FUSED = "--fused_linear_logprob --chunk_size 3"
CHECKPOINTING, SHARDED = "--gradient_checkpointing", ("--zero_stage 3", "--fsdp")
SELECTIVE = f"{CHECKPOINTING} --recompute_granularity selective"
ONCE = "--fsdp_reshard step"
TWO = ("--zero_stage 2", "--fsdp")
APART = "--packing_samples --no-share_prompts"
SETTINGS = (
    Setting("plain"),
    Setting("Adam offload", "--adam_offload"),
    Setting("CPU offload", "--fsdp_cpu_offload", of=("--fsdp",)),
    Setting("bf16", "--bf16", rounds=10),
    Setting("masters apart", "--use_mp_opt --bf16", rounds=10, of=("--fsdp",)),
    Setting("once a step", ONCE, of=("--fsdp",), ranks=(2, 3)),
    Setting("once a step, bf16", f"{ONCE} --bf16", rounds=10, of=("--fsdp",), ranks=(2,)),
    Setting("once a step, masters apart", f"{ONCE} --use_mp_opt --bf16", rounds=10, of=("--fsdp",), ranks=(2,)),
    Setting("once a step, CPU offload", f"{ONCE} --fsdp_cpu_offload", of=("--fsdp",), ranks=(2,)),
    Setting("once a step, critic", f"{ONCE} --adam_offload {GAE}", of=("--fsdp",), ranks=(2,)),
    Setting("once a step, checkpointing", f"{ONCE} {FUSED} {SELECTIVE}", of=("--fsdp",), ranks=(2,)),
    Setting("once a step, copies, sp 2", f"{ONCE} --hybrid_shard_size 1", sp_size=2, of=("--fsdp",), ranks=(2,)),
    Setting(
        "once a step, packed, EMA",
        f"{ONCE} --packing_samples --enable_ema --ema_beta {BETA}",
        of=("--fsdp",),
        ranks=(2,),
    ),
    Setting("once a step, LoRA", f"{ONCE} {CHECKPOINTING} --init_kl_coef 0.05", of=("--fsdp",), ranks=(2,)),
    Setting("critic", GAE),
    Setting("KL reference", "--init_kl_coef 0.05", reference_seed=5),
    Setting("EMA", f"--enable_ema --ema_beta {BETA}"),
    Setting("packed", "--packing_samples --max_tokens_per_micro_batch 40", ranks=(1, 2)),
    Setting("packed, no prompt shared", f"{APART} --init_kl_coef 0.05", reference_seed=5, of=TWO, ranks=(1, 2)),
    Setting("packed critic", f"{GAE} --packing_samples", of=TWO, ranks=(1, 2)),
    Setting("packed bf16", "--bf16 --packing_samples", rounds=10, of=TWO, ranks=(1, 2)),
    Setting("oneDNN", least=1, of=("--zero_stage 1", "--zero_stage 3", "--fsdp"), ranks=(1, 2)),
    Setting("sp 2", sp_size=2, ranks=(2,)),
    Setting("fused head", FUSED, ranks=(1, 2)),
    Setting("fused head, sp 2", FUSED, sp_size=2, of=SHARDED, ranks=(2,)),
    Setting("fused packed", f"{FUSED} --packing_samples --init_kl_coef 0.05", reference_seed=5, of=TWO, ranks=(1, 2)),
    Setting("fused head, bf16", f"{FUSED} --bf16", rounds=10, of=("--fsdp",), ranks=(1,)),
    Setting("fused head, checkpointing", f"{FUSED} {CHECKPOINTING}", of=SHARDED, ranks=(2,)),
    Setting("packed, fused head, checkpointing", f"--packing_samples {FUSED} {CHECKPOINTING}", of=SHARDED, ranks=(2,)),
    Setting("checkpointing", CHECKPOINTING, ranks=(1, 2)),
    Setting("checkpointing, bf16", f"{CHECKPOINTING} --bf16", rounds=10, of=SHARDED, ranks=(2,)),
    Setting("checkpointing, critic", f"{CHECKPOINTING} {GAE}", of=SHARDED, ranks=(2,)),
    Setting("checkpointing, sp 2", CHECKPOINTING, sp_size=2, of=SHARDED, ranks=(2,)),
    Setting("selective checkpointing", SELECTIVE, ranks=(1,)),
    Setting("selective checkpointing, sp 2", f"{SELECTIVE} --activation_offload", sp_size=2, of=SHARDED, ranks=(2,)),
    Setting("packed, sp 2", "--packing_samples", sp_size=2, of=TWO, ranks=(2,)),
    Setting("sp 3", sp_size=3, ranks=(3,), model="six heads"),
    Setting("LoRA", ranks=(1, 2)),
    Setting("LoRA, bf16", "--bf16", rounds=10, of=SHARDED, ranks=(1, 2)),
    Setting("LoRA, KL to the policy without", "--init_kl_coef 0.05", of=SHARDED, ranks=(2,)),
    Setting("LoRA, EMA", f"--enable_ema --ema_beta {BETA}", of=TWO, ranks=(2,)),
    Setting("LoRA, CPU offload", "--fsdp_cpu_offload", of=("--fsdp",), ranks=(2,)),
    Setting("LoRA, Adam offload", "--adam_offload", of=SHARDED, ranks=(1,)),
    Setting("LoRA, checkpointing, fused head", f"{CHECKPOINTING} {FUSED}", of=SHARDED, ranks=(1, 2)),
    Setting("LoRA, packed", "--packing_samples", of=SHARDED, ranks=(2,)),
    Setting("LoRA, sp 2", sp_size=2, of=SHARDED, ranks=(2,)),
    Setting("QLoRA", ranks=(1, 2)),
    Setting("QLoRA, bf16", "--bf16", rounds=10, of=TWO, ranks=(1,)),
    Setting("QLoRA, KL to the policy without", "--init_kl_coef 0.05", of=SHARDED, ranks=(2,)),
    Setting("QLoRA, CPU offload", "--fsdp_cpu_offload", of=("--fsdp",), ranks=(2,)),
    Setting("QLoRA, all together", f"--packing_samples {FUSED} {SELECTIVE}", sp_size=2, of=SHARDED, ranks=(2,)),
    Setting("LoRA, all together", f"--packing_samples {FUSED} {SELECTIVE}", sp_size=2, ranks=(2,)),
)


@dataclass(frozen=True)
class Case:
    strategy: str
    setting: Setting

    def __str__(self) -> str:
        return f"{self.strategy} {self.setting.name}"


def cases(ranks: int) -> list[Case]:
    """One process in float32 needs no library, and has none unless a flag names it."""
    of_library = [Case(strategy, s) for s in SETTINGS for strategy in s.of if ranks in s.ranks]
    whole = [s for s in SETTINGS if s.of == STRATEGIES and 1 in s.ranks and not s.half and "offload" not in s.flags]
    return of_library + [Case(ALONE, s) for s in whole if ranks == 1]


# At this rate a parameter is its gradient to all its digits, and the parameter that it was is lost in them.
RATE = 1024.0
GRADIENT = f"--optimizer sgd --actor_learning_rate {RATE} --critic_learning_rate {RATE}"
ADAM_RATE, EPSILON, DECAY, MAX_NORM = 1e-3, 1e-4, 0.1, 0.25
# Two epochs of three optimizer steps, and each clips. Adam makes much of the roundings of gradients below its epsilon.
STEPS = f"""--optimizer adamw --actor_learning_rate {ADAM_RATE} --critic_learning_rate {ADAM_RATE} --l2 {DECAY}
 --adam_epsilon {EPSILON} --max_norm {MAX_NORM} --train_batch_size 4 --max_epochs 2 --micro_train_batch_size 2"""


def samples_of(setting: Setting) -> list[Sample]:
    rounds = range(setting.rounds)
    return [replace(s, group=s.group + 3 * number) for number in rounds for s in make_samples(number)]


def gradients(world: World, case: Case, critic: str, micro: int) -> Tensors:
    """Of one optimizer step on all rows."""
    rows = 12 * case.setting.rounds
    sizes = f"--rollout_batch_size {rows // 4} --train_batch_size {rows} --micro_train_batch_size {micro}"
    before, after, _ = turn(world, case, f"{GRADIENT} {sizes}", critic, samples_of(case.setting))
    return {name: (before[name] - after[name]) / RATE for name in before}


def stepped(world: World, case: Case, critic: str) -> Tensors:
    """Parameters after six steps of AdamW on the twelve samples, and their average where there is one."""
    _, after, run = turn(world, case, STEPS, critic, make_samples())
    average = run.updater.average
    return after | ({f"average.{name}": value.cpu() for name, value in average.tensors()} if average else {})


def turn(world: World, case: Case, flags: str, critic: str, samples: list[Sample]) -> tuple[Tensors, Tensors, Trained]:
    """One turn of the loop, with this rank's rows of `samples`: parameters before and after it, and the run."""
    s = case.setting
    more = f" --critic_pretrain {critic}" if "gae" in s.flags else ""
    products.LEAST = s.least
    run = prepare(world, f"{case.strategy} {flags} {s.flags}{more}", reference_seed=s.reference_seed, make=s.make)
    dealt = DEALT[world.dp_size][world.dp_rank]
    mine = [start + row for start in range(0, len(samples), 12) for row in dealt]
    before = parameters(run)
    run.learn(run.batch([as_rollout(samples[row], row % 4) for row in mine]))
    return before, parameters(run), run


@dataclass(frozen=True)
class Found:
    """gradients: by the rows of a micro-batch. stepped: what AdamW made of the parameters."""

    gradients: dict[int, Tensors]
    stepped: Tensors


def measure(case: Case, critic: str) -> Found:
    """On all ranks that there are."""
    world = join_world(case.setting.sp_size)
    try:
        found = {micro: gradients(world, case, critic, micro) for micro in case.setting.micros}
        return Found(found, stepped(world, case, critic))
    except Exception as error:
        raise AssertionError(str(case)) from error


def main(out: str, critic: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    found = {str(case): vars(measure(case, critic)) for case in cases(world.size)}
    if world.rank == 0:
        torch.save(found, out)
    leave_world()


if __name__ == "__main__":
    run_rank(main)
