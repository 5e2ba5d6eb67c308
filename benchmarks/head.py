"""The output head with its loss part, forward and back: whole logits, `--fused_linear_logprob`, TRL's, and Liger's.

    python benchmarks/head.py --rounds 5 --peers_python ENV/bin/python

"naive": whole logits, as the trainer has without the flag; its linear layers' product, by oneDNN on a CPU. "fused":
with the flag and a loss whose slope at a token follows from that token's own scores, as that of most estimators;
"by_row": from those of its row of 64 tokens, as that of gspo; "unforeseen": neither, so that logits are made twice, as
of rows that are too long to be held, in 16 bits, and on a GPU, where the three are the same. "trl": what
TRL 1.16's GRPOTrainer always runs, tiles of 4,096 tokens by 32,768 words, made again in the backward pass.
"trl_logits": TRL's functions on whole logits, which its GRPOTrainer had before and other trainers have, in rows of 256
tokens. "liger": Liger's chunked head, which gives no entropy and so does less. Peers multiply by torch.

Peers run by `--peers_python` (default: this Python), in an environment of `pip install torch==2.13.0 "trl==1.16.*"
liger-kernel==0.8.5`; a peer that is not there is left out. Each side is a process of its own, and they take turns, all
with the allocator of our runs. Memory is the peak above what was held before the pass, the gradients of hidden states
and weights included, of the first pass; seconds are medians of the others. The last two columns are the lengths of the
gradients of hidden states and weights, equal where sides do the same. On a GPU, `on_device` runs all sides that this
Python has in one process.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from head_contestants import DTYPES, SIDES, Problem
from sides import Side
from torch import Tensor

from lightrft.allocator import keep_freed_memory

HERE = Path(__file__).resolve().parent


def one_pass(side: str, p: Problem, entropy: str | None) -> dict[str, float]:
    """Wall and CPU seconds, GiB, and the lengths of both gradients; a frozen head's is 0."""
    p.hidden.grad = p.weight.grad = None
    before = _forget_peak(p.hidden.device)
    start = time.perf_counter(), _cpu_seconds()
    logprobs, entropies = SIDES[side].scores(p, entropy)
    loss = (p.slope * logprobs).sum()
    if entropy == "gradient" and entropies is not None:
        loss = loss - 0.01 * entropies.mean()
    loss.backward()
    if p.hidden.is_cuda:
        torch.cuda.synchronize()
    return {
        "wall": time.perf_counter() - start[0],
        "cpu": _cpu_seconds() - start[1],
        "gib": (_peak(p.hidden.device) - before) / 2**30,
        "hidden": _length(p.hidden.grad),
        "head": _length(p.weight.grad),
    }


def _length(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(torch.linalg.vector_norm(gradient, dtype=torch.float64))


def on_device(
    rows: int, words: int, width: int, dtype: str, rounds: int, entropy: str | None = "value", device: str = "cuda"
) -> list[str]:
    """Lines of a table, of all sides in turns on the GPU, and of what is told about peers."""
    problem = Problem.draw(rows, words, width, dtype, device)
    pythons, lines = contestants(sys.executable)
    passes = {side: [one_pass(side, problem, entropy)] for side in pythons}
    for _ in range(rounds):
        for side, made in passes.items():
            made.append(one_pass(side, problem, entropy))
    return lines + table(passes)


def contestants(peers_python: str) -> tuple[dict[str, str], list[str]]:
    """The Python of each side that can run, and a line about each peer: its versions, or that it is left out."""
    pythons, lines = {}, []
    for side, way in SIDES.items():
        if not way.package:
            pythons[side] = sys.executable
        elif versions := _versions(peers_python, way.package, "torch"):
            pythons[side] = peers_python
            lines.append(f"{side}: {versions}")
        else:
            lines.append(f"{side}: left out, no {way.package} in {peers_python}; --peers_python names another")
    return pythons, lines


def _versions(python: str, *packages: str) -> str:
    """Those of that Python's packages; nothing where one is missing."""
    ask = "import sys, importlib.metadata as of; print(*map(of.version, sys.argv[1:]))"
    done = subprocess.run([python, "-c", ask, *packages], capture_output=True, text=True)
    return ", ".join(map(" ".join, zip(packages, done.stdout.split(), strict=True))) if done.returncode == 0 else ""


def table(passes: dict[str, list[dict[str, float]]]) -> list[str]:
    """naive has to be among them."""
    lines = [
        "| | wall, s | CPU, s | memory, GiB | of naive | hidden's gradient | weights' gradient |",
        "|---|---|---|---|---|---|---|",
    ]
    for side, (first, *others) in passes.items():
        wall, cpu = (statistics.median(each[kind] for each in others) for kind in ("wall", "cpu"))
        name, memory = side if SIDES[side].entropy else f"{side} (no entropy)", first["gib"]
        share = memory / passes["naive"][0]["gib"]
        numbers = f"{wall:.3f} | {cpu:.3f} | {memory:.3f} | {share:.0%} | {first['hidden']:.5g} | {first['head']:.5g}"
        lines.append(f"| {name} | {numbers} |")
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
    pythons, lines = contestants(args.peers_python)
    print("\n".join(lines), flush=True)
    sides = [start(name, python, words, args) for name, python in pythons.items()]
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in pythons}
    for _ in range(args.rounds + 1):
        for side in sides:
            passes[side.name].append(side.ask("pass"))
    for side in sides:
        side.stop()
    print("\n".join(table(passes)))


def start(name: str, python: str, words: list[str], args: argparse.Namespace) -> Side:
    """Our modules are found by a peer's Python too."""
    command = [python, __file__, *words, "--side", name]
    return Side(name, command, Path(args.logs) / f"head_{name}.log", args.threads, {"PYTHONPATH": str(HERE.parent)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"tokens": 2048, "words": 49152, "width": 576, "rounds": 5, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--entropy", choices=("value", "gradient"), default="value", help="what the losses ask for")
    parser.add_argument("--frozen", action="store_true", help="the head does not train, as beside LoRA")
    parser.add_argument("--peers_python", default=sys.executable, help="Python of an environment with TRL and Liger")
    parser.add_argument("--logs", default="/tmp")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not shutil.which(args.peers_python):
        parser.error(f"--peers_python {args.peers_python}: no such program; ENV/bin/python of a virtual environment")
    answer(args) if args.side else compare(args, sys.argv[1:])


if __name__ == "__main__":
    main()
