"""The output head with its loss part, forward and back: whole logits, `--fused_linear_logprob`, Liger where it is.

Whole logits ("naive") are those of the trainer without the flag: its linear layers' product, by oneDNN on a CPU. Liger
multiplies by torch.

    python benchmarks/head.py --rounds 5

Each side is a process of its own, and they take turns. Memory is the peak above what was held before the pass, the
gradients of hidden states and weights included, of the first pass; seconds are medians of the others. On a GPU,
`on_device` runs all sides in one process.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sides import Side
from torch import Tensor

from lightrft.allocator import keep_freed_memory
from lightrft.models.fused_head import fused_logprobs
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logprob import token_logprobs
from lightrft.models.products import linear

TEMPERATURE, CHUNK = 0.8, 4096
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Problem:
    """hidden [N, H], weight [V, H], tokens [N], and the gradient of the loss to each log-probability [N]."""

    hidden: Tensor
    weight: Tensor
    tokens: Tensor
    slope: Tensor

    @classmethod
    def draw(cls, rows: int, words: int, width: int, dtype: str, device: str, trains: bool = True) -> Problem:
        make = torch.Generator(device).manual_seed(0)
        hidden, weight = (torch.randn(n, width, generator=make, device=device) for n in (rows, words))
        tokens = torch.randint(words, (rows,), generator=make, device=device)
        slope = torch.randn(rows, generator=make, device=device) / rows
        kind = DTYPES[dtype]
        weight = (0.05 * weight).to(kind).requires_grad_(trains)
        return cls(hidden.to(kind).requires_grad_(), weight, tokens, slope)


Scores = tuple[Tensor, Tensor | None]


def naive(p: Problem, entropy: str | None) -> Scores:
    logits = linear(p.hidden, p.weight).float()
    return token_logprobs(logits, p.tokens, TEMPERATURE, entropy)


def fused(p: Problem, entropy: str | None) -> Scores:
    found = fused_logprobs(Blocks(p.hidden, p.weight, None, (), TEMPERATURE, CHUNK), p.tokens, entropy)
    return found[:, 0], found[:, 1] if entropy else None


def liger(p: Problem, entropy: str | None) -> Scores:
    """It has no entropy: less is asked of it."""
    from liger_kernel.chunked_loss.fused_linear_ppo import _ChunkedSelectiveLogProbFunction as Chunked

    return Chunked.apply(p.hidden, p.weight, p.tokens, None, TEMPERATURE, 4096), None


SIDES: dict[str, Callable[[Problem, str | None], Scores]] = {"naive": naive, "fused": fused, "liger": liger}


def one_pass(side: str, p: Problem, entropy: str | None) -> dict[str, float]:
    """Wall and CPU seconds, and GiB; and a number by which sides can be compared."""
    p.hidden.grad = p.weight.grad = None
    before = _forget_peak(p.hidden.device)
    start = time.perf_counter(), _cpu_seconds()
    logprobs, entropies = SIDES[side](p, entropy)
    loss = (p.slope * logprobs).sum()
    if entropy == "gradient" and entropies is not None:
        loss = loss - 0.01 * entropies.mean()
    loss.backward()
    if p.hidden.is_cuda:
        torch.cuda.synchronize()
    assert p.hidden.grad is not None
    return {
        "wall": time.perf_counter() - start[0],
        "cpu": _cpu_seconds() - start[1],
        "gib": (_peak(p.hidden.device) - before) / 2**30,
        "checksum": float(p.hidden.grad.double().square().sum()),
    }


def on_device(rows: int, words: int, width: int, dtype: str, rounds: int, entropy: str | None = "value") -> list[str]:
    """Lines of a table, of all sides in turns on the GPU."""
    problem = Problem.draw(rows, words, width, dtype, "cuda")
    passes = {side: [one_pass(side, problem, entropy)] for side in SIDES if _can_run(side)}
    for _ in range(rounds):
        for side, made in passes.items():
            made.append(one_pass(side, problem, entropy))
    return table(passes)


def _can_run(side: str) -> bool:
    try:
        import liger_kernel  # noqa: F401
    except ImportError:
        return side != "liger"
    return True


def table(passes: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = ["| | wall, s | CPU, s | memory, GiB | of naive |", "|---|---|---|---|---|"]
    of = {
        side: [statistics.median(each[kind] for each in made[1:]) for kind in ("wall", "cpu")]
        for side, made in passes.items()
    }
    memory = {side: made[0]["gib"] for side, made in passes.items()}
    for side, (wall, cpu) in of.items():
        share = memory[side] / memory["naive"]
        lines.append(f"| {side} | {wall:.3f} | {cpu:.3f} | {memory[side]:.3f} | {share:.0%} |")
    return lines


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _forget_peak(device: torch.device) -> int:
    """Bytes that are held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def answer(args: argparse.Namespace) -> None:
    """What a side does: a pass for each line that it reads."""
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    problem = Problem.draw(args.tokens, args.words, args.width, args.dtype, "cpu", not args.frozen)
    small = Problem.draw(300, 600, args.width, args.dtype, "cpu", not args.frozen)
    one_pass(args.side, small, args.entropy)  # code is read, and made: memory that is not of the pass
    ctypes.CDLL(None).malloc_trim(0)  # what drawing has freed would be used before the memory grows
    for _ in sys.stdin:
        print(json.dumps(one_pass(args.side, problem, args.entropy)), flush=True)


def compare(args: argparse.Namespace, words: list[str]) -> None:
    names = [side for side in SIDES if _can_run(side)]
    command = [sys.executable, __file__, *words]
    logs = Path(args.logs)
    sides = [Side(name, [*command, "--side", name], logs / f"head_{name}.log", args.threads) for name in names]
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(args.rounds + 1):
        for side in sides:
            passes[side.name].append(side.ask("pass"))
    for side in sides:
        side.stop()
    print("\n".join(table(passes)))
    print({name: made[0]["checksum"] for name, made in passes.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"tokens": 2048, "words": 49152, "width": 576, "rounds": 5, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--entropy", choices=("value", "gradient"), default="value", help="what the losses ask for")
    parser.add_argument("--frozen", action="store_true", help="the head does not train, as beside LoRA")
    parser.add_argument("--logs", default="/tmp")
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    answer(args) if args.side else compare(args, sys.argv[1:])


if __name__ == "__main__":
    main()
