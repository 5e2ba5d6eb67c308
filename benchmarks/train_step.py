"""One optimizer step, side by side: padded rows, packed rows, shared prompts, the fused head, layers computed twice.

    python benchmarks/train_step.py [--growth [1 2 4 8]] [--size tiny] [--only padded shared]

Every contestant is a process of its own with a model of random weights (SmolLM2's size) under FSDP2; they make steps
in turns, so that a busy machine disturbs all alike, each a warm-up and then the step that counts. Rows are the same for
all: `--prompts` x `--samples`, responses of a quarter of `--tokens` to all of it. Contestants whose flags are not built
in this checkout are left out.

How to read it: medians over the turns. "tokens/s" counts tokens of the rows, padding not, per second of wall time, and
"/ CPU s" per second of CPU time of all threads. "peak GiB" is the process's largest memory, "above" what of it came
with the steps. "of peak" is the model's floating-point operations for these rows per CPU second over those of a
4096 x 4096 product, measured in the same turn: a layout that computes padding has a smaller share, one that shares
prompts a larger one. "grad norm" has to be the same. Without --only a second table has the loss part alone (head.py).

`--growth`: CPU seconds per token with 1, 2, 4 and 8 times the tokens of a row, samples of a prompt, and (with rows in
proportion, over gloo, a small model) ranks, in micro-batches as given and in one, under FSDP2 as it is by default and
with --fsdp_reshard step, and under ZeRO 1 and 2. The last line is of as many processes that share nothing,
so it is what the machine itself does to several. The ratio is of the last to the first: 1 = as fast per token.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from sides import Side

HERE = Path(__file__).resolve().parent
PLAIN = "--no-share_prompts"
CONTESTANTS = {
    "padded": PLAIN,
    "packed": f"{PLAIN} --packing_samples",
    "packed, shared, fused": "--packing_samples --share_prompts --fused_linear_logprob",
    "shared": "--share_prompts",
    "fused": f"{PLAIN} --fused_linear_logprob",
    "shared, fused": "--share_prompts --fused_linear_logprob",
    "twice": f"{PLAIN} --gradient_checkpointing",
    "twice, fused": f"{PLAIN} --gradient_checkpointing --fused_linear_logprob",
    "but attention, fused": (
        f"{PLAIN} --gradient_checkpointing --recompute_granularity selective --fused_linear_logprob"
    ),
    "all": "--share_prompts --fused_linear_logprob --gradient_checkpointing",
}
GROWTH = (1, 2, 4, 8)
SHARING = {
    "FSDP2": "--fsdp",
    "once a step": "--fsdp --fsdp_reshard step",
    "ZeRO 1": "--zero_stage 1",
    "ZeRO 2": "--zero_stage 2",
}
PRODUCTS = "products"  # in the place of flags: no model, products of matrices alone


def built() -> dict[str, str]:
    """The contestants whose flags this checkout has."""
    from lightrft.args.unbuilt import UNBUILT

    missing = {f"--{name}" for name in UNBUILT}
    return {name: flags for name, flags in CONTESTANTS.items() if not missing & set(flags.split())}


def contest(options: argparse.Namespace) -> None:
    """Answers "step", how many prompts, samples, and tokens of response and prompt, with what came of it; or anything
    with the machine's products."""
    from lightrft.allocator import keep_freed_memory

    keep_freed_memory()  # as a run does, before torch allocates
    import torch
    from workload import Training, matmul_peak, peak_gib, rollouts

    from lightrft.ranks.launch import join_world

    torch.set_num_threads(options.threads)
    world = join_world()
    if options.flags == PRODUCTS:
        dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
        for _ in sys.stdin:
            print(json.dumps({"flops": matmul_peak(dtype, world.device)}), flush=True)
        return
    most = options.prompts * options.samples * max(options.growth)
    flags = f"{options.flags} --fsdp --micro_train_batch_size {options.micro} --{options.dtype}"
    longest = max(options.tokens, options.prompt_tokens) * max(options.growth)
    training = Training(world, options.size, flags, most, options.samples, longest)
    before = peak_gib()
    for line in sys.stdin:
        prompts, samples, tokens, of_prompt = map(int, line.split()[1:])
        made = rollouts(prompts, samples, of_prompt, tokens, training.vocabulary, equal=len(options.growth) > 1)
        told = asdict(training.step(training.batch(made)))
        print(json.dumps({**told, "peak": peak_gib(), "above": peak_gib() - before}), flush=True)


def side(name: str, flags: str, options: argparse.Namespace, folder: Path) -> Side:
    passed = ("size", "prompts", "samples", "tokens", "prompt_tokens", "micro", "threads")
    words = [word for option in passed for word in (f"--{option}", str(getattr(options, option)))]
    more = ["--growth", *map(str, options.growth), "--dtype", options.dtype]
    command = [sys.executable, str(HERE / "train_step.py"), *words, *more, f"--flags={flags}"]
    path = f"{HERE.parent}:{HERE}"
    return Side(name, command, folder / f"{name}.log", options.threads, {"PYTHONPATH": path})


def once(name: str, flags: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The second of two steps; one contestant at a time, since each holds a model and its optimizer."""
    each = side(name, flags, options, folder)
    try:
        rows = options.prompts, options.samples, options.tokens, options.prompt_tokens
        _, found = (each.ask("step", *rows) for _ in range(2))
        return found
    finally:
        each.stop()


def compare(options: argparse.Namespace, folder: Path) -> None:
    chosen = {name: flags for name, flags in built().items() if not options.only or name in options.only}
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    peaks = []
    for _ in range(options.rounds):
        peaks.append(once("products", PRODUCTS, options, folder)["flops"])
        for name, flags in chosen.items():
            told[name].append(once(name, flags, options, folder))
    peak = median(peaks)
    print(f"{options.size} --{options.dtype}, {options.threads} threads, products: {peak / 1e9:.0f} GFLOP a CPU second")
    columns = ("wall s", "CPU s", "tokens/s", "/ CPU s", "positions", "peak GiB", "above", "of peak", "grad norm")
    print(f"{'':24}" + "".join(f"{column:>11}" for column in columns))
    for name, rows in told.items():
        wall, cpu = (median(row[key] for row in rows) for key in ("wall", "cpu"))
        last = rows[-1]
        numbers = (wall, cpu, last["tokens"] / wall, last["tokens"] / cpu, last["positions"], last["peak"])
        shown = [f"{number:11.4g}" for number in (*numbers, last["above"], last["flops"] / cpu / peak)]
        print(f"{name:24}" + "".join(shown) + f"{rows[0]['grad_norm']:11.6f}", flush=True)
    if not options.only:
        heads(options)


def heads(options: argparse.Namespace) -> None:
    """What the loss part takes, by head.py: of whole logits and fused, over 49,152 words."""
    dtype = "bfloat16" if options.dtype == "bf16" else "float32"
    words = ["--rounds", str(options.rounds), "--threads", str(options.threads), "--dtype", dtype]
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}"}
    subprocess.run([sys.executable, str(HERE / "head.py"), *words], env=environment, check=True)


def grow(options: argparse.Namespace, folder: Path) -> None:
    each = side("shared", CONTESTANTS["shared"], options, folder)
    print(f"{'CPU ms a token':22}" + "".join(f"{factor:>7} x" for factor in options.growth) + "   last / first")
    for what in ("samples", "tokens"):
        found: dict[int, list[float]] = {factor: [] for factor in options.growth}
        for turn in range(options.rounds + 1):
            for factor in options.growth:
                more, longer = (factor if what == grows else 1 for grows in ("samples", "tokens"))
                lengths = longer * options.tokens, longer * options.prompt_tokens
                told = each.ask("step", options.prompts, more * options.samples, *lengths)
                found[factor] += [1e3 * told["cpu"] / told["tokens"]] if turn else []
        _row(what, [median(found[factor]) for factor in options.growth])
    each.stop()
    for micro in (options.micro, 4 * options.samples):  # over gloo each micro-batch costs all weights; the last is one
        for name, flags in SHARING.items():
            grow_ranks(f"ranks, {name}, micro {micro}", options, "--micro", str(micro), f"--flags={flags}")
    micro = str(options.micro)
    grow_ranks(f"ranks that share nothing, micro {micro}", options, "--alone", "--micro", micro, "--flags=--fsdp")


def grow_ranks(name: str, options: argparse.Namespace, *words: str) -> None:
    turns = [[ranked(count, options, *words) for count in options.growth] for _ in range(options.rounds)]
    _row(name, [median(found) for found in zip(*turns, strict=True)])


def _row(name: str, values: list[float]) -> None:
    print(f"{name:30}" + "".join(f"{v:9.4g}" for v in values) + f"{values[-1] / values[0]:12.3f}", flush=True)


def ranked(count: int, options: argparse.Namespace, *words: str) -> float:
    """CPU milliseconds of all ranks per token of a step whose rows grow with the ranks; words: what these are told."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}:{HERE}"}
    command = [*torchrun, str(HERE / "train_step.py"), "--as_rank", "--samples", str(options.samples), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return float(done.stdout.split()[-1])


def as_rank(options: argparse.Namespace) -> None:
    import torch
    from workload import Training, rollouts

    from lightrft.ranks.base import alone
    from lightrft.ranks.collectives import Collectives
    from lightrft.ranks.launch import join_world, leave_world

    torch.set_num_threads(1)
    everyone, samples = join_world(), options.samples
    world = alone(everyone.device) if options.alone else everyone
    flags = f"--share_prompts {options.flags} --micro_train_batch_size {options.micro}"
    training = Training(world, "small", flags, 4 * samples * world.size, samples, 512)
    made = rollouts(4 * world.size, samples, 64, 128, training.vocabulary, equal=True)
    mine = made[4 * samples * world.rank : 4 * samples * (world.rank + 1)]
    batch = training.batch(mine)
    told = [training.step(batch) for _ in range(4)][1:]
    cpu = sum(Collectives(everyone).gather([median(each.cpu for each in told)]))
    if everyone.rank == 0:
        print(1e3 * cpu / (told[0].tokens * everyone.size), flush=True)
    leave_world()
    os._exit(0)  # as tests/contract/launch.py says: caches of DTensor abort an interpreter that ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="smollm2-135m", help="of the model: tiny, small, smollm2-135m, qwen3-0.6b")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8, help="of each prompt")
    parser.add_argument("--prompt_tokens", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=48, help="of the longest response")
    parser.add_argument("--micro", type=int, default=8, help="rows of a micro-batch")
    parser.add_argument("--dtype", choices=("no-bf16", "bf16"), default="no-bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="turns; of --growth after a first one")
    parser.add_argument("--only", nargs="+", choices=tuple(CONTESTANTS))
    parser.add_argument("--growth", type=int, nargs="*", default=[1], help="by how many times; by itself 1 2 4 8")
    parser.add_argument("--flags", help=argparse.SUPPRESS)
    parser.add_argument("--as_rank", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.growth = options.growth or list(GROWTH)
    if options.as_rank:
        as_rank(options)
    elif options.flags is not None:
        contest(options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            (grow if len(options.growth) > 1 else compare)(options, Path(folder))


if __name__ == "__main__":
    main()
