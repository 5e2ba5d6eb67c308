"""Turns of the loop where processes share sequences.

As a script under torchrun, `sequences.py OUT CRITIC SP_SIZE`, it runs the cases for so many processes a sequence, and
writes what came out, and what each process computed.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.distributed as dist
from launch import run_rank
from policies import small_model
from ranks import ALONE, DEALT, FEW, MODELS, SLOWLY, Case, Float64, own_batch, prepare, turn
from transformers import AutoModelForCausalLM, NemotronConfig

from lightrft.errors import Refused
from lightrft.models.sequence_checks import check_parts
from lightrft.models.sequence_parallel import share_sequences
from lightrft.models.token_model import TokenModel
from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world

STRATEGIES = ("float64", "--fsdp", "--zero_stage 1", "--zero_stage 2", "--zero_stage 3")
GAE = SLOWLY["gae"]
MASK = "--replay_sampling_mask"
# Policy, critic and reference with every term of the loss; micro-batches of one row, so of one without a trained token.
EVERYTHING = [Case("gae", kind, 1, GAE) for kind in STRATEGIES]
SHARED = [Case("group_norm", kind, 4, "--share_prompts") for kind in ("float64", "--zero_stage 3")]
HEADS = [Case("group_norm", kind, model="one key head") for kind in ("float64", "--fsdp")]
MASKED = [Case("cpgd", more="--high_entropy_token_ratio 0.3"), Case("gspo"), Case("gmpo", more=ALONE)]
REPLAYED = [Case("group_norm", "float64", 4, f"--share_prompts {MASK}"), Case("group_norm", "--fsdp", 2, MASK)]
HALF = [Case("group_norm", kind, half=True) for kind in ("--fsdp", "--zero_stage 2")]
UNEQUAL = [Case("gae", kind, 1, f"{GAE} {FEW}", "skewed") for kind in ("--fsdp", "--zero_stage 1", "--zero_stage 3")]
TWO = [*EVERYTHING, *SHARED, *HEADS, *MASKED, *REPLAYED, *HALF, Case("group_norm", model="untied")]
THREE = [Case("gae", kind, 1, GAE, model="six heads") for kind in ("float64", "--fsdp", "--zero_stage 3")]
FOUR = [*UNEQUAL, EVERYTHING[0], *SHARED, MASKED[0]]
CASES = {(2, 2): TWO, (3, 3): THREE, (4, 2): FOUR}  # of (processes, sp_size)


def model_of(sp_size: int) -> str:
    """One with heads that so many processes can divide."""
    return "six heads" if sp_size == 3 else "small"


@torch.no_grad()
def computed(world: World) -> dict[str, object]:
    """The positions that this process's layers see of each row, and how far it is off where it has a row alone."""
    make = partial(small_model, **MODELS[model_of(world.sp_size)])
    run = prepare(world, "--advantage_estimator group_norm --no-share_prompts", strategy=Float64(world), make=make)
    batch, _ = own_batch(run, list(DEALT[world.dp_size][world.dp_rank]))
    seen: list[int] = []
    model = run.policy.model
    hook = model.model.layers[0].mlp.register_forward_hook(lambda *passed: seen.append(passed[1][0].shape[1]))
    run.model.logprobs(batch)
    hook.remove()
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    alone = model(input_ids=ids).logits - make().double()(input_ids=ids).logits
    return {"seen": seen, "width": batch.input_ids.shape[1], "alone": float(alone.abs().max())}


def refused(world: World) -> str:
    """What is said of a model that does not hand on to attention what its forward pass is given."""
    sizes = {"hidden_size": 48, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 16}
    torch.manual_seed(0)
    config = NemotronConfig(**sizes, num_attention_heads=6, num_key_value_heads=6, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config).double()
    run = TokenModel(Float64(world).prepare(model, None), sequence_ranks=share_sequences(model, world))
    try:
        check_parts(run, "--pretrain it")
    except Refused as caught:
        return str(caught)
    return ""


def main(out: str, critic: str, sp_size: str) -> None:
    torch.set_num_threads(1)
    world = join_world(int(sp_size))
    found = [turn(world, case, critic) for case in CASES[world.size, world.sp_size]]
    everyone = [None] * world.size
    dist.all_gather_object(everyone, ([metrics for *_, metrics in found], computed(world), refused(world)))
    if world.rank == 0:
        metrics, parts, told = zip(*everyone, strict=True)
        after = [parameters for _, parameters, _ in found]
        torch.save({"parameters": after, "metrics": metrics, "parts": parts, "told": told}, out)
    leave_world()


if __name__ == "__main__":
    run_rank(main)
