"""Models that are loaded without weights (`--meta_init`) beside those that are loaded whole, on one process or several.

As a script under torchrun, `empties.py FOLDER`, it makes every check on its number of processes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from launch import run_rank
from policies import arguments, largest_difference, own_strategy, small_model
from torch import Tensor

from lightrft.args import Args
from lightrft.build.update import given_weights
from lightrft.models.adapters import adapters_of
from lightrft.models.critic import critic_args, load_critic
from lightrft.models.given import weight_files
from lightrft.models.load import load_model
from lightrft.ranks.base import World
from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import Handle, OptimArgs, Strategy

ADAM = OptimArgs("adamw", 1e-2, (0.9, 0.99), 1e-8, 0.01, 0.5, "constant", warmup_steps=0, total_steps=10)
IDS = torch.tensor([[5, 7, 9, 4], [6, 15, 8, 11]])
LAYOUTS = [
    (strategy, precision, kind)
    for strategy in ("--fsdp", "--fsdp --fsdp_cpu_offload", "--zero_stage 3")
    for precision in ("fp32", "bf16")
    for kind in ("policy", "LoRA", "reference", "critic")
    if kind != "LoRA" or "zero" not in strategy
]


def save_models(folder: Path) -> None:
    """One with tied weights, in several files; and one whose head is its own."""
    small_model(3).save_pretrained(folder / "tied", max_shard_size="100KB")
    small_model(4, tie_word_embeddings=False).save_pretrained(folder / "untied")


def prepared(args: Args, strategy: Strategy, precision: str, kind: str) -> tuple[Handle, int | None]:
    """The handle, and how many bytes were read range by range."""
    device, empty, half = strategy.world.device, args.distributed.meta_init, precision == "bf16"
    dtype = torch.bfloat16 if kind == "reference" and half else torch.float32
    if kind == "critic":
        model, given = load_critic(args.model, dtype, device, empty=empty), critic_args(args.model)
    else:
        model, given = load_model(args.model, dtype, device, trains=kind != "reference", empty=empty), args.model
    weights = given_weights(args, given, model)
    handle = strategy.prepare(model, None if kind == "reference" else ADAM, weights)
    handle.adapters = adapters_of(model) if kind == "LoRA" else None
    return handle, weights and weights.read_bytes


def parameters(strategy: Strategy, handle: Handle) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu().clone() for name, value in strategy.full_params(handle)}


def step(strategy: Strategy, handle: Handle) -> float:
    logits = handle.module(input_ids=IDS, use_cache=False).logits.float()
    loss = -logits.log_softmax(-1)[..., 5].mean() if logits.shape[-1] > 1 else (logits - 1).square().mean()
    if handle.optim is not None:
        strategy.backward(handle, loss, last=True)
        strategy.step(handle)
    return loss.item()


def check(world: World, folder: Path, layout: tuple[str, str, str], model: str) -> None:
    """To the bit: what is handed out, what is computed, and what a step makes of it. And each rank reads its part."""
    strategy, precision, kind = layout
    found = {}
    for flag in ("", "--meta_init"):
        lora = "--lora_rank 4" if kind == "LoRA" else ""
        args = arguments(f"{strategy} {flag} {lora} --pretrain {folder / model}")
        made = own_strategy(args, world, precision)
        handle, read = prepared(args, made, precision, kind)
        found[flag] = (parameters(made, handle), step(made, handle), parameters(made, handle))
    (whole, loss, after), (own, own_loss, own_after) = found.values()
    assert largest_difference(own, whole) == 0 and loss == own_loss, "loaded"
    assert largest_difference(own_after, after) == 0, "after a step"
    assert (largest_difference(after, whole) > 1e-3) == (kind != "reference")
    size = sum(file.stat().st_size for file in weight_files(args.model))
    if "zero" not in strategy or kind != "reference":
        share = size / world.size + 60_000  # and a row at either end of each tensor that is cut there
        assert read is not None and 0 < read < share, (read, size)


def main(folder: str) -> None:
    torch.set_num_threads(1)
    world = join_world()
    for layout in LAYOUTS:
        try:
            check(world, Path(folder), layout, "untied" if "offload" in layout[0] else "tied")
        except Exception as error:
            raise AssertionError(str(layout)) from error
    leave_world()


if __name__ == "__main__":
    run_rank(main)
