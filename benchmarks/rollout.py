"""Tokens per second of the local engine, of Hugging Face's `generate` and of vLLM, on this machine's CPU.

    python benchmarks/rollout.py [--lengths tail] [--growth] [--vllm_python ENV/bin/python] [--against OTHER_CHECKOUT]

Every contestant is a process of its own that holds the model in its precision; they generate in turns, so that a busy
machine disturbs all alike, and the first turn of each is a warm-up. `--lengths fixed`: every response has exactly
`--tokens` tokens. `tail`: one token id in `--end_every` ends a response, for all contestants alike, so lengths have the
long tail of real ones, up to eight times `--tokens`; there are four times as many prompts, `--prompts` of them at once
(vLLM takes them all).
The prompts are chat questions; temperature 1, no filters unless `--top_p` says so, log-probabilities are asked for.

How to read it: medians over the turns; "x generate" is the ratio to `generate` in fp32 of tokens per CPU second (user
and system, all threads: steadier on a busy machine) and of tokens per second of wall time. `--growth` asks the local
engine for 1, 2, 4 and 8 times the samples, in turns, and its ratios are to 1 time. "x prompts": so many times the
prompts, of which `--prompts` are decoded at once, as in a larger rollout: 1 is as fast per token. "x samples": so many
times the samples of each prompt, all of them at once: products of more rows, which are better ones.
vLLM's rows are there where `--vllm_python` (or this Python) has it; `--against` adds the local engine of another
checkout of this repository. `--model random` is a Llama of SmolLM2's size that needs no files.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from sides import Side

HERE = Path(__file__).resolve().parent
QUESTION = "State the final answer to the following arithmetic problem: {}{} ="
TERMS = (" + 7", " - 3 + 12", " * 4", " - 8 - 5 + 2", " + 1 + 1 + 1 + 1")
DTYPES = ("fp32", "bf16")
GROWTH = (1, 2, 4, 8)
Generate = Callable[[int, int, int], int]  # (turn, prompts, samples of each) -> tokens made


def count_prompts(options: argparse.Namespace) -> int:
    return options.prompts * (4 if options.lengths == "tail" else 1)


def prompts(options: argparse.Namespace) -> list[list[int]]:
    most = count_prompts(options) * (max(GROWTH) if options.growth else 1)
    texts = [QUESTION.format(number + 2, TERMS[number % len(TERMS)]) for number in range(most)]
    if options.model.endswith("random"):
        return [[100 + ord(letter) for letter in text[20:]] for text in texts]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    chats = [[{"role": "user", "content": text}] for text in texts]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]


def ends(options: argparse.Namespace, vocabulary: int) -> list[int]:
    return list(range(7, vocabulary, options.end_every)) if options.lengths == "tail" else []


def most_tokens(options: argparse.Namespace) -> int:
    return options.tokens * (8 if options.lengths == "tail" else 1)


def load(options: argparse.Namespace) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(options.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    return AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).eval()


def local(options: argparse.Namespace) -> Generate:
    """The engine borrows a model whose parameters require a gradient, as in training."""
    from lightrft.allocator import keep_freed_memory
    from lightrft.rollouts.engines.base import Sampling
    from lightrft.rollouts.engines.local import LocalEngine
    from lightrft.types import Request

    keep_freed_memory()
    model, asked, tokenizer = load(options), prompts(options), None
    engine = LocalEngine(lambda: nullcontext(model), tokenizer, ends(options, model.config.vocab_size))
    sampling = Sampling(most_tokens(options), top_p=options.top_p)

    def generate(turn: int, count: int, samples: int) -> int:
        seeds = [[turn << 32 | i << 16 | j for j in range(samples)] for i in range(count)]
        requests = [Request(tuple(ids), tuple(own)) for ids, own in zip(asked[:count], seeds, strict=True)]
        made = engine.generate(requests, sampling, at_once=options.prompts)
        return sum(len(each.response_ids) for group in made for each in group)

    return generate


def generate(options: argparse.Namespace) -> Generate:
    import torch

    model, asked = load(options), prompts(options)
    stop, length = ends(options, model.config.vocab_size), most_tokens(options)
    words = {"eos_token_id": stop} if stop else {"min_new_tokens": length}

    def batch(part: list[list[int]], samples: int) -> int:
        width = max(map(len, part))
        ids = torch.tensor([[0] * (width - len(one)) + one for one in part])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in part])
        found = model.generate(
            ids, attention_mask=mask, do_sample=True, temperature=1.0, top_p=options.top_p, top_k=0, pad_token_id=0,
            max_new_tokens=length, num_return_sequences=samples, **words,
        )[:, width:]  # fmt: skip
        ended = torch.isin(found, torch.tensor(stop, dtype=torch.long)).long()
        return int((ended.cumsum(-1) - ended == 0).sum())  # tokens up to the first that ends, itself included

    def run(turn: int, count: int, samples: int) -> int:
        torch.manual_seed(turn)
        starts = range(0, count, options.prompts)
        return sum(batch(asked[start : start + options.prompts], samples) for start in starts)

    return run


def vllm(options: argparse.Namespace) -> Generate:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    from vllm import LLM, SamplingParams

    asked, length = prompts(options), most_tokens(options)
    llm = LLM(
        options.model, dtype={"fp32": "float32", "bf16": "bfloat16"}[options.dtype], enforce_eager=True,
        skip_tokenizer_init=True, max_model_len=1024, enable_prefix_caching=False,
        enable_chunked_prefill=False,  # samples with seeds whose prompts are read in parts fail on a CPU
    )  # fmt: skip
    stop = ends(options, llm.model_config.get_vocab_size())

    def run(turn: int, count: int, samples: int) -> int:
        words = {"temperature": 1.0, "top_p": options.top_p, "logprobs": 0, "detokenize": False, "ignore_eos": True}
        params = SamplingParams(n=samples, max_tokens=length, seed=turn, stop_token_ids=stop, **words)
        made = llm.generate([{"prompt_token_ids": ids} for ids in asked[:count]], params, use_tqdm=False)
        return sum(len(each.token_ids) for request in made for each in request.outputs)

    return run


CONTESTANTS = {"local": local, "generate": generate, "vllm": vllm, "against": local}


def serve(options: argparse.Namespace) -> None:
    """A child: each line `turn prompts samples` is answered by one line of JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print goes to the log
    run = CONTESTANTS[options.side](options)
    versions = {name: version(name) for name in ("torch", "transformers")}
    for line in sys.stdin:
        turn, count, samples = map(int, line.split())
        wall, cpu = time.perf_counter(), cpu_seconds()
        tokens = run(turn, count, samples)
        found = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu, "tokens": tokens}
        print(json.dumps({**found, "versions": versions}), file=answers, flush=True)


def cpu_seconds() -> float:
    return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])


def start(side: str, dtype: str, python: str, options: argparse.Namespace) -> Side:
    words = ["--child", json.dumps({**vars(options), "side": side, "dtype": dtype})]
    home = options.against if side == "against" else str(HERE.parent)
    log = Path(options.folder) / f"{side}-{dtype}.log"
    command = [python, str(HERE / "rollout.py"), *words]
    return Side(f"{side} {dtype}", command, log, options.threads, {"PYTHONPATH": home})


def contestants(options: argparse.Namespace) -> list[Side]:
    here, other = sys.executable, options.vllm_python or (sys.executable if find_spec("vllm") else None)
    pythons = {"generate": here, "local": here, "against": options.against and here, "vllm": other}
    wanted = {name: python for name, python in pythons.items() if python and name in options.only}
    return [start(name, dtype, python, options) for name, python in wanted.items() for dtype in options.dtypes]


def loads(options: argparse.Namespace) -> dict[str, tuple[int, int]]:
    """Prompts, and samples of each, by what it is called."""
    count, samples = count_prompts(options), options.samples
    if not options.growth:
        return {"": (count, samples)}
    more_prompts = {f" {each} x prompts": (each * count, samples) for each in GROWTH}
    return more_prompts | {f" {each} x samples": (count, each * samples) for each in GROWTH[1:]}


def take_turns(sides: list[Side], options: argparse.Namespace) -> dict[str, list[Any]]:
    """The answers of the counted turns, by contestant and load."""
    found: dict[str, list[Any]] = {}
    for number in range(options.rounds + 1):
        for side in sides:
            for name, load in loads(options).items():
                answer = side.ask(number, *load)
                if number:
                    found.setdefault(f"{side.name}{name}", []).append(answer)
    return found


def show(found: dict[str, list[Any]], first: str) -> None:
    print(f"{'':24}{'tokens':>8}{'wall s':>8}{'CPU s':>8}{'tok/CPU s':>11}{'tok/s':>8}   x {first}: CPU, wall")
    speed = {name: [median(one["tokens"] / one[of] for one in found[name]) for of in ("cpu", "wall")] for name in found}
    for name, answers in found.items():
        tokens, wall, cpu = (median(answer[of] for answer in answers) for of in ("tokens", "wall", "cpu"))
        ratios = "".join(f"{own / base:8.2f}" for own, base in zip(speed[name], speed[first], strict=True))
        print(f"{name:24}{tokens:8.0f}{wall:8.2f}{cpu:8.2f}{speed[name][0]:11.1f}{speed[name][1]:8.1f}{ratios:>20}")
    versions = {side: answers[0]["versions"] for side, answers in found.items()}
    for each in sorted({json.dumps(one) for one in versions.values()}):
        print(", ".join(f"{name} {number}" for name, number in json.loads(each).items()), flush=True)


def made_model(options: argparse.Namespace) -> str:
    """`--model`, or the folder of one with random weights."""
    if options.model != "random":
        return options.model
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    heads: dict[str, Any] = {"num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30}
    heads |= {"hidden_size": 576, "intermediate_size": 1536, "tie_word_embeddings": True}
    config = LlamaConfig(vocab_size=49152, **heads)
    LlamaForCausalLM(config).save_pretrained(folder := f"{options.folder}/random")
    return folder


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sizes = {"rounds": 3, "prompts": 4, "samples": 8, "tokens": 48, "threads": 2, "end_every": 40}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct", help="a folder, or the word random")
    parser.add_argument("--lengths", choices=("fixed", "tail"), default="fixed")
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--growth", action="store_true", help="the local engine alone, at 1 to 8 times the samples")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=tuple(CONTESTANTS))
    parser.add_argument("--vllm_python", help="Python of an environment with vLLM")
    parser.add_argument("--against", help="another checkout of this repository, whose local engine takes part")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.child and options.model != "random" and not Path(options.model, "config.json").is_file():
        parser.error(f"--model {options.model}: no model there; python examples/smollm2.py --out {options.model}")
    if options.growth:
        options.only = ("local",)
    return options


def main() -> None:
    options = read_options()
    if options.child:
        return serve(argparse.Namespace(**options.child))
    with tempfile.TemporaryDirectory(prefix="rollout_") as options.folder:
        options.model = made_model(options)
        sides = contestants(options)
        try:
            found = take_turns(sides, options)
        finally:
            for side in sides:
                side.stop()
    length = "long-tailed lengths" if options.lengths == "tail" else f"{options.tokens} tokens each"
    print(f"{Path(options.model).name}: {options.prompts} prompts at once x {options.samples} samples, {length}")
    print(f"{options.threads} threads, {os.cpu_count()} cores; top_p {options.top_p:g}; medians of {options.rounds}")
    show(found, next(iter(found)))


if __name__ == "__main__":
    main()
