"""Our training step against that of TRL's GRPOTrainer, on this machine's CPU.

    python benchmarks/vs_trl.py [--natural] [--strategy fsdp] [--steps 3] [--dtypes fp32 bf16]

All sides train the same model on the same chat prompts: generate, reward, one AdamW step (beta 0, same rate, betas and
clipping, whole groups, micro-batches of `--micro` rows, temperature 1, no filters, the same threads), in each of
`--dtypes`, where bf16 is what each trainer makes of its own flag for it. Their processes stay alive and step in turns,
ours first, so that a busy machine disturbs all alike; each side's first step is a warm-up and not counted. For the
headline the end of a sequence is suppressed and every response has exactly `--tokens` tokens; `--natural` adds a second
table where responses end by themselves, so that the sides' token counts differ. Rewards are a hash of the response:
random-like, never equal within a group, and so no group is skipped.

How to read it: medians over the counted steps; "trl / ours" above 1 means that ours is faster or smaller. CPU seconds
(user and system, all threads) are the steadier figure on a busy machine. The phases are in wall seconds; "update" is
all that is neither generation nor reward. Peak memory includes loading.
TRL lives where `--trl_python` points, or in benchmarks/.venv-trl, made at the first run (1.5 GB). Run it from the root.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from sides import Side
from trl_environment import trl_environment

HERE = Path(__file__).resolve().parent
LEARNING_RATE, BETAS, MAX_NORM = 1e-5, (0.9, 0.95), 1.0
SYSTEM = "You are a calculator."
SUMS = ("6 - 8", "8 - 7", "2 + 4", "3 + 0", "9 - 2", "8 - 3", "6 - 3", "4 + 2")
QUESTION = "State the final answer to the following arithmetic problem: {} ="
ROWS = {  # of the table: how its numbers are found in a step's answer
    "wall, s a step": lambda answer: answer["wall"],
    "CPU, s a step": lambda answer: answer["cpu"],
    "  generate, wall s": lambda answer: answer["phases"]["generate"],
    "  update, wall s": lambda answer: answer["phases"]["update"],
    "tokens a step": lambda answer: answer["tokens"],
    "tokens / CPU s": lambda answer: answer["tokens"] / answer["cpu"],
    "peak memory, GiB": lambda answer: answer["memory"],
}
HIGHER_IS_BETTER, NO_RATIO = {"tokens / CPU s"}, {"tokens a step"}


def messages(count: int) -> list[list[dict[str, str]]]:
    system = {"role": "system", "content": SYSTEM}
    return [[system, {"role": "user", "content": QUESTION.format(sum_)}] for sum_ in SUMS[:count]]


def reward(completions: list[Any], **_: Any) -> list[float]:
    """A hash of each response's text in [0, 1). For chats both trainers give chat messages."""
    texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
    return [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32 for text in texts]


class Pacer:
    """A child's end: a step begins when the line "step" comes in, and is answered by one line of JSON."""

    def __init__(self, *packages: str) -> None:
        self.versions = {name: version(name) for name in ("torch", "transformers", *packages)}
        self.answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # whatever libraries print goes to the log

    def wait(self) -> None:
        if sys.stdin.readline() != "step\n":
            raise SystemExit(0)
        self.started = time.perf_counter()
        self.cpu_before = _cpu_seconds()

    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def answer(self, tokens: int, phases: dict[str, float]) -> None:
        found = {"wall": self.elapsed(), "cpu": _cpu_seconds() - self.cpu_before, "memory": _peak_memory()}
        print(json.dumps({**found, "tokens": tokens, "phases": phases, "versions": self.versions}), file=self.answers)
        self.answers.flush()


def _cpu_seconds() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])  # user and system


def _peak_memory() -> float:
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / (1 << 30)


def our_flags(options: argparse.Namespace) -> list[str]:
    data, rows = Path(options.folder) / "prompts.jsonl", options.prompts * options.samples
    data.write_text("".join(json.dumps({"prompt": chat}) + "\n" for chat in messages(options.prompts)))
    words = f"""--pretrain {options.model} --prompt_data {data} --reward_fn {HERE / "vs_trl.py"}:reward
        {"--bf16" if options.dtype == "bf16" else "--no-bf16"} --save_path {options.folder}/run-{options.log}
        --save_interval 0 --quiet --max_steps {options.steps + 2}
        --advantage_estimator group_norm --init_kl_coef 0 --temperature 1 --top_p 1
        --rollout_batch_size {options.prompts} --n_samples_per_prompt {options.samples} --train_batch_size {rows}
        --micro_rollout_batch_size {options.prompts} --micro_train_batch_size {options.micro}
        --prompt_max_len 128 --max_new_tokens {options.tokens} --max_len {128 + options.tokens}
        --actor_learning_rate {LEARNING_RATE} --lr_scheduler constant --lr_warmup_steps 0
        --adam_betas {BETAS[0]} {BETAS[1]} --max_norm {MAX_NORM}""".split()
    return words + ["--fsdp"] * (options.strategy == "fsdp")


def run_ours(options: argparse.Namespace, pacer: Pacer) -> None:
    """What `train.py` does with these flags; a logger at the end of every step keeps the pace."""
    sys.path.insert(0, str(HERE.parent))
    from lightrft.allocator import keep_freed_memory
    from lightrft.args import check, parse
    from lightrft.build.trainer import build_trainer
    from lightrft.preflight import check_inputs
    from lightrft.track.base import Logger, Loggers, Sample
    from lightrft.types import Outcome

    keep_freed_memory()
    check(args := parse(our_flags(options)), 1)
    trainer = build_trainer(args, check_inputs(args))
    trainer.collector.sampling = replace(trainer.collector.sampling, ignore_eos=not options.natural)

    class Last(Logger):
        def metrics(self, values: dict[str, float], step: int) -> None:
            self.phases = {name: values[f"perf/{name}_s"] for name in ("generate", "score", "update")}

        def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
            pacer.answer(sum(outcome.length for outcome in outcomes), self.phases)
            pacer.wait()

    trainer.loggers = Loggers([trainer.loggers, Last()])
    pacer.wait()
    trainer.fit()


def trl_config(options: argparse.Namespace) -> Any:
    """One generation of all rows, then one optimizer step over them."""
    from trl import GRPOConfig

    half = options.dtype == "bf16"
    config = GRPOConfig(
        output_dir=options.folder, max_steps=options.steps + 2, use_cpu=True, bf16=half, gradient_checkpointing=False,
        model_init_kwargs={"dtype": "float32"}, use_vllm=False, dataloader_num_workers=0, dataloader_pin_memory=False,
        per_device_train_batch_size=options.micro, num_generations=options.samples, num_iterations=1,
        gradient_accumulation_steps=options.prompts * options.samples // options.micro,
        max_completion_length=options.tokens, temperature=1.0, top_p=1.0, top_k=0, beta=0.0, loss_type="grpo",
        generation_kwargs=None if options.natural else {"min_new_tokens": options.tokens},
        optim="adamw_torch_fused", learning_rate=LEARNING_RATE, lr_scheduler_type="constant", warmup_steps=0,
        adam_beta1=BETAS[0], adam_beta2=BETAS[1], max_grad_norm=MAX_NORM,
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    assert config.generation_batch_size == options.prompts * options.samples
    assert config.steps_per_generation == config.gradient_accumulation_steps
    return config


def run_trl(options: argparse.Namespace, pacer: Pacer) -> None:
    """`GRPOTrainer.train()`; a callback keeps the pace. Its reward call marks the end of generation."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    seen: dict[str, float] = {}

    def rewarded(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        seen.update(tokens=sum(map(len, completion_ids)), generate=pacer.elapsed())
        return reward(completions)

    class Paced(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            pacer.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            generate = seen["generate"]
            pacer.answer(int(seen["tokens"]), {"generate": generate, "update": pacer.elapsed() - generate})

    data = Dataset.from_dict({"prompt": messages(options.prompts)})
    GRPOTrainer(options.model, rewarded, trl_config(options), train_dataset=data, callbacks=[Paced()]).train()


def start(side: str, dtype: str, python: str, options: argparse.Namespace) -> Side:
    name = f"{side} {dtype}"
    log = f"{side}-{dtype}-{options.natural}"
    words = ["--side", json.dumps({**vars(options), "side": side, "dtype": dtype, "log": log})]
    return Side(name, [python, str(HERE / "vs_trl.py"), *words], Path(options.folder) / f"{log}.log", options.threads)


def take_turns(options: argparse.Namespace, trl_python: str) -> dict[str, list[dict[str, Any]]]:
    """The answers of the counted steps of each side."""
    pythons = {"ours": sys.executable, "trl": trl_python}
    sides = [start(side, dtype, python, options) for side, python in pythons.items() for dtype in options.dtypes]
    found: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    try:
        for turn in range(options.steps + 1):
            for side in sides:
                answer = side.ask("step")
                label = f"step {turn}" if turn else "warm-up"
                print(f"{label} {side.name:>9}: wall {answer['wall']:.2f} s, CPU {answer['cpu']:.2f} s", flush=True)
                found[side.name] += [answer] * (turn > 0)
    finally:
        for side in sides:
            side.stop()
    return found


def show(options: argparse.Namespace, found: dict[str, list[dict[str, Any]]]) -> None:
    length = f"up to {options.tokens} tokens, natural ends" if options.natural else f"{options.tokens} tokens each"
    print(f"\n{Path(options.model).name}: {options.prompts} prompts x {options.samples} samples, {length}")
    print(f"{options.threads} threads, {os.cpu_count()} cores; micro-batch {options.micro}; ours on {options.strategy}")
    of = [(own, their) for own in options.dtypes for their in options.dtypes if (own, their) != ("fp32", "bf16")]
    pairs = [(f"ours {own}", f"trl {their}") for own, their in of]
    titles = [f"{theirs} / {ours}" for ours, theirs in pairs]
    print("".join([f"{'median of ' + str(options.steps) + ' steps':22}", *(f"{name:>11}" for name in found)]), end="")
    print("".join(f"{title:>22}" for title in titles))
    for row, number in ROWS.items():
        medians = {name: median(map(number, answers)) for name, answers in found.items()}
        line = "".join(f"{medians[name]:11.2f}" for name in found)
        for ours, theirs in pairs if row not in NO_RATIO else []:
            ratio = medians[theirs] / medians[ours]
            line += f"{1 / ratio if row in HIGHER_IS_BETTER else ratio:22.2f}"
        print(f"{row:22}{line}")
    for name, answers in found.items():
        print(f"{name}: {', '.join(f'{package} {number}' for package, number in answers[0]['versions'].items())}")
    print(flush=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in {"steps": 3, "prompts": 4, "samples": 8, "tokens": 48, "micro": 8, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct")
    parser.add_argument("--strategy", choices=("deepspeed", "fsdp"), default="deepspeed")
    parser.add_argument("--dtypes", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--natural", action="store_true", help="a second table with natural lengths")
    parser.add_argument("--trl_python", help="Python of an environment with TRL; default: benchmarks/.venv-trl")
    parser.add_argument("--side", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 0 < options.prompts <= len(SUMS) or options.prompts * options.samples % options.micro:
        parser.error(f"--prompts is 1 to {len(SUMS)}; --micro divides prompts x samples")
    if not options.side and not Path(options.model, "config.json").is_file():
        parser.error(f"--model {options.model}: no model there; python examples/smollm2.py --out {options.model}")
    return options


def main() -> None:
    options = read_options()
    if options.side:
        import torch

        mine = argparse.Namespace(**options.side)
        torch.set_num_threads(mine.threads)
        if mine.side == "ours":
            run_ours(mine, Pacer(*["deepspeed"] * (mine.strategy == "deepspeed")))
        else:
            run_trl(mine, Pacer("trl"))
        return
    trl_python, tables = options.trl_python or trl_environment(), [False, True][: 1 + options.natural]
    with tempfile.TemporaryDirectory(prefix="vs_trl_") as folder:
        for natural in tables:
            each = argparse.Namespace(**{**vars(options), "natural": natural, "folder": folder})
            show(each, take_turns(each, trl_python))


if __name__ == "__main__":
    main()
