"""One row of many tokens on one process, and shared by several (`--sp_size`): memory and time of a training pass.

    python benchmarks/sequence_parallel.py --tokens 4096 --sp_size 2

A Llama of random weights under FSDP2 in fp32, one thread a process, log-probabilities and entropies forward and back.
Memory is the peak of a process above what it held before the pass; seconds are the median of `--passes` after a first.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lightrft.batch import Batch, collate
from lightrft.models.sequence_parallel import share_sequences
from lightrft.models.token_model import TokenModel
from lightrft.ranks.base import World
from lightrft.ranks.collectives import Collectives
from lightrft.ranks.launch import join_world, leave_world
from lightrft.strategy.base import OptimArgs, Precision
from lightrft.strategy.fsdp2 import FSDP2Strategy
from lightrft.types import Prompt, Rollout

SIZES: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "vocab_size": 8192}
HEADS: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4}
SGD = OptimArgs("sgd", 1e-3, (0.9, 0.999), 1e-8, 0.0, 0.0, "constant", 0, 100)


def row(tokens: int, device: torch.device) -> Batch:
    """A prompt of an eighth of the tokens, and a response of the others."""
    ids = torch.randint(SIZES["vocab_size"], (tokens,), generator=torch.Generator().manual_seed(0)).tolist()
    prompt, response = ids[: tokens // 8], ids[tokens // 8 :]
    made = Rollout(
        prompt=Prompt(id="0", messages=()), group=0, sample=0, prompt_ids=tuple(prompt), response_ids=tuple(response),
        response="", response_mask=(1,) * len(response), rollout_logprobs=(0.0,) * len(response),
        finish_reason="stop", policy_version=0,
    )  # fmt: skip
    return collate([made], 1.0, device)


def measured(world: World, tokens: int, passes: int) -> tuple[float, float, float, float]:
    """Peak memory above the model in GiB, wall and CPU seconds of a pass, and the loss, of this process."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, max_position_embeddings=tokens))
    model = model.to(world.device).eval()
    ranks, strategy = share_sequences(model, world), FSDP2Strategy(world, Precision("fp32"))
    policy, batch = TokenModel(strategy.prepare(model, SGD), sequence_ranks=ranks), row(tokens, world.device)
    before, seconds = _peak(), []
    for _ in range(passes + 1):
        start = time.perf_counter(), time.process_time()
        scores = policy.logprobs(batch, entropy="gradient")
        assert scores.entropy is not None
        loss = -(scores.logprobs.sum() + 0.01 * scores.entropy.sum()) / tokens
        strategy.backward(policy.handle, loss, last=True)
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        policy.handle.optimizer.zero_grad()
    wall, cpu = (statistics.median(column) for column in zip(*seconds[1:], strict=True))
    return _peak() - before, wall, cpu, float(loss.detach())


def _peak() -> float:
    """Of this process's memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_as_rank(tokens: int, passes: int, sp_size: int) -> None:
    torch.set_num_threads(1)
    world = join_world(sp_size)
    found = Collectives(world, everyone=True).gather([measured(world, tokens, passes)])
    if world.rank == 0:
        memory, wall, cpu, loss = (list(column) for column in zip(*found, strict=True))
        print(f"{max(memory):.3f} {max(wall):.2f} {sum(cpu):.2f} {loss[0]:.6f}", flush=True)
    leave_world()
    os._exit(0)  # as tests/contract/launch.py says: caches of DTensor abort an interpreter that ends


def launched(sp_size: int, words: list[str]) -> list[float]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={sp_size}"]
    command = [*torchrun, __file__, *words, "--sp_size", str(sp_size), "--rank"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--sp_size", type=int, default=2)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        run_as_rank(args.tokens, args.passes, args.sp_size)
    words = ["--tokens", str(args.tokens), "--passes", str(args.passes)]
    alone, shared = launched(1, words), launched(args.sp_size, words)
    print(f"{args.tokens} tokens: one process, {args.sp_size} that share them, and the ratio")
    for place, name in enumerate(("peak memory of a process, GiB", "wall, s a pass", "CPU of all, s a pass", "loss")):
        print(f"{name:32} {alone[place]:10.4g} {shared[place]:10.4g} {shared[place] / alone[place]:10.3f}")


if __name__ == "__main__":
    main()
