"""One optimizer step of Qwen3-0.6B on one GPU: memory and tokens per second with each flag that saves memory.

    python benchmarks/gpu_train.py           # one H100 or H200, under eight minutes
    python benchmarks/gpu_train.py --tiny    # anywhere, a tiny model: whether the script works

The weights are random, and nothing is downloaded. Two micro-batches of one row of 16,384 tokens, an eighth of them the
prompt, then AdamW's step, in bf16 under FSDP2. Each contestant is a process of its own, one after another; seconds are
the median of `--steps` after a first. "allocated" is the most that tensors took, "reserved" what PyTorch had of the
device for them; on a CPU both are the process's largest memory. "of peak" is the model's floating-point operations per
second over the device's, as its maker tells it, or else of a measured product. The aims are 12.5 GiB and 24,000
tokens/s, and 5.1 GiB with LoRA of rank 16.

Then the head alone: log-probabilities and entropies of 8,192 tokens over 151,936 words from 4,096 hidden numbers,
forward and backward, beside Liger's where it is installed (`pip install liger-kernel`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from workload import GIB, Training, finish, matmul_peak, peak_gib, rollouts

from lightrft.args.unbuilt import UNBUILT
from lightrft.models.flops import device_peak
from lightrft.models.fused_head import Blocks, fused_logprobs
from lightrft.models.logprob import token_logprobs
from lightrft.ranks.launch import join_world

HERE = Path(__file__).resolve().parent
CONTESTANTS = {
    "plain": "",
    "twice": "--gradient_checkpointing",
    "fused": "--fused_linear_logprob",
    "twice, fused": "--gradient_checkpointing --fused_linear_logprob",
    "twice but attention, fused": ("--gradient_checkpointing --recompute_granularity selective --fused_linear_logprob"),
    "twice, fused, inputs on the host": "--gradient_checkpointing --activation_offload --fused_linear_logprob",
    "twice, fused, bf16 shards": "--gradient_checkpointing --fused_linear_logprob --use_mp_opt",
    "twice, fused, Adam on the host": "--gradient_checkpointing --fused_linear_logprob --adam_offload",
    "twice, fused, all on the host": "--gradient_checkpointing --fused_linear_logprob --fsdp_cpu_offload",
    "LoRA r 16, twice, fused": "--gradient_checkpointing --fused_linear_logprob --lora_rank 16",
    "the same in 4 bits": "--gradient_checkpointing --fused_linear_logprob --lora_rank 16 --load_in_4bit",
}
TOKENS = {False: 16384, True: 64}
HEAD = {False: (8192, 151936, 4096), True: (32, 512, 64)}


def contest(tiny: bool, flags: str, steps: int) -> None:
    """Prints what came of it as JSON."""
    tokens, world = TOKENS[tiny], join_world()
    size = "tiny" if tiny else "qwen3-0.6b"
    training = Training(world, size, f"--fsdp --bf16 --micro_train_batch_size 1 {flags}", 2, 2, tokens)
    prompt = tokens // 8
    batch = training.batch(rollouts(1, 2, prompt, tokens - prompt, training.vocabulary, equal=True))
    told = [training.step(batch) for _ in range(steps + 1)][1:]
    seconds = median(each.wall for each in told)
    allocated = reserved = peak_gib()
    if world.device.type == "cuda":
        allocated, reserved = torch.cuda.max_memory_allocated() / GIB, torch.cuda.max_memory_reserved() / GIB
    peak = device_peak() or matmul_peak(torch.bfloat16, world.device, size=256 if tiny else 4096)
    speed = told[0].tokens / seconds
    print(json.dumps([seconds, speed, allocated, reserved, peak_gib(), told[0].flops / seconds / peak]), flush=True)
    os._exit(0)  # as tests/contract/launch.py says: caches of DTensor abort an interpreter that ends


def compare(tiny: bool, steps: int) -> None:
    missing = {f"--{name}" for name in UNBUILT}
    columns = ("s", "tokens/s", "allocated", "reserved", "host GiB", "of peak")
    print(f"{'':32}" + "".join(f"{column:>11}" for column in columns), flush=True)
    for name, flags in CONTESTANTS.items():
        if missing & set(flags.split()):
            print(f"{name:32} not built", flush=True)
            continue
        found, failed = launched([f"--flags={flags}", "--steps", str(steps)], tiny)
        shown = "".join(f"{number:11.4g}" for number in json.loads(found)) if found else f" {failed}"
        print(f"{name:32}{shown}", flush=True)


def launched(words: list[str], tiny: bool) -> tuple[str, str]:
    """The last line of what a process of this script said, or why there is none: one too large for the device."""
    command = [sys.executable, __file__, *(["--tiny"] if tiny else []), *words]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{HERE.parent}:{HERE}",
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["it said nothing"]
    return ("", lines[-1]) if done.returncode else (lines[-1], "")


def heads(tiny: bool) -> None:
    """Log-probabilities forward and backward, each way: milliseconds, and GiB above weights, inputs and gradients."""
    tokens, words, width = HEAD[tiny]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, dtype=torch.bfloat16).requires_grad_()
    weight = (torch.randn(words, width, device=device, dtype=torch.bfloat16) / width**0.5).requires_grad_()
    labels = torch.randint(words, (tokens,), device=device)
    print(f"the head alone, {tokens} x {words} x {width}, bf16: ms, GiB above", flush=True)
    for name, way in ways().items():
        try:
            print(
                f"{name:32}" + "".join(f"{number:11.4g}" for number in timed(way, hidden, weight, labels)), flush=True
            )
        except (ImportError, torch.OutOfMemoryError) as error:
            print(f"{name:32} {str(error).splitlines()[0]}", flush=True)


Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def ways() -> dict[str, Way]:
    """Each gives the sum of the tokens' log-probabilities, or its negative; ours and the naive one with entropies."""

    def naive(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logprobs, _ = token_logprobs((hidden @ weight.t()).float(), labels, 1.0, "value")
        return logprobs.sum()

    def fused(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return fused_logprobs(Blocks(hidden, weight, None, (), 1.0, 4096), labels, "value")[:, 0].sum()

    def liger(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        return LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, labels)

    return {"naive": naive, "--fused_linear_logprob": fused, "Liger (no entropy)": liger}


def timed(way: Way, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Of the median of three passes after a first."""
    seconds, on_gpu = [], hidden.device.type == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else 0
    for _ in range(4):
        finish(hidden.device)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        torch.autograd.grad(way(hidden, weight, labels), (hidden, weight))
        finish(hidden.device)
        seconds.append(time.perf_counter() - start)
    gradients = 2 * (hidden.numel() + weight.numel())
    above = (torch.cuda.max_memory_allocated() - before - gradients) / GIB if on_gpu else float("nan")
    return 1e3 * median(seconds[1:]), above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model and head, on any machine")
    parser.add_argument("--steps", type=int, default=3, help="after the first one")
    parser.add_argument("--flags", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flags is not None:
        contest(options.tiny, options.flags, options.steps)
    on_gpu = torch.cuda.is_available()
    print(f"{torch.cuda.get_device_name() if on_gpu else 'CPU'}, torch {torch.__version__}", flush=True)
    compare(options.tiny, options.steps)
    heads(options.tiny)


if __name__ == "__main__":
    main()
