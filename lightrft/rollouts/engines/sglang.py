"""SGLang as an inference engine. It lives in a process of its own, beside those that SGLang starts for itself.

    the trainer: this file, hosted.Host
      its child: sglang_host.Hosted, with SGLang's Engine
        one for each GPU of the engine: sglang_scheduler, with the model and the sampler

SGLang's Engine replaces signal handlers and the event loop of the process that makes it, `shutdown` kills all children
of that process, and a worker that fails kills the process itself: so it is not the trainer's.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from lightrft.args.nearest import nearest
from lightrft.errors import Refused, RunFailed, warn
from lightrft.rollouts.engines.base import EngineFailed, InferenceEngine, Sampling
from lightrft.rollouts.engines.hosted import Host, environment
from lightrft.types import Generation, Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.engine import EngineArgs
    from lightrft.args.groups.model import ModelArgs
    from lightrft.ranks.base import World

HOST = "lightrft.rollouts.engines.sglang_host"
OURS = ("model_path", "device", "dtype", "tp_size", "base_gpu_id", "skip_tokenizer_init", "sampling_backend")
BUCKET_BYTES, BUCKET_TENSORS = 1 << 28, 64  # sent at once; in shared memory a tensor takes a file descriptor
CPU_KV_BYTES, CPU_KV_TOKENS = 1 << 30, 1 << 16  # room for keys and values without a GPU: the smaller of the two
SIGNED = 1 << 63


def unsupported(sampling: Sampling) -> str | None:
    """What it cannot do of that."""
    if sampling.first_temperature is not None:
        return "sglang cannot sample the first token at a temperature of its own (--use_fire)"
    if sampling.stop:
        return "sglang gets and gives token ids alone here, so it cannot look for the texts of --stop"
    return None


def settings_fault(engine_kwargs: Sequence[str]) -> str | None:
    """What is wrong with settings of --engine_kwargs. SGLang itself is asked for its names, in another process."""
    given = [setting.partition("=") for setting in engine_kwargs]
    if without := next((name for name, equals, _ in given if not equals), None):
        return f"--engine_kwargs {without} has no value; write {without}=value"
    if ours := next((name for name, _, _ in given if name in OURS), None):
        return f"--engine_kwargs {ours} is set by other flags"
    known = _known_settings()
    wrong = next((name for name, _, _ in given if name not in known), None)
    return None if wrong is None else f"--engine_kwargs {wrong}: sglang has no such setting{nearest(wrong, known)}"


@cache
def _known_settings() -> tuple[str, ...]:
    done = subprocess.run([sys.executable, "-m", HOST, "--settings"], capture_output=True, text=True, env=environment())
    if done.returncode:
        raise Refused(f"--engine_type sglang: it cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    return tuple(json.loads(done.stdout.strip().splitlines()[-1]))


def make(
    model: ModelArgs,
    engine: EngineArgs,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Iterable[int],
    dtype: torch.dtype,
    world: World,
) -> InferenceEngine:
    """The engine of this process."""
    return SGLangEngine(settings(model, engine, dtype, world.device), dtype, end_ids, sleeps=engine.enable_engine_sleep)


def settings(model: ModelArgs, engine: EngineArgs, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Of SGLang's Engine. The weights are not read from the disk: who generates has pushed them."""
    import yaml

    from lightrft.models.source import place

    shared = {
        "model_path": place(model),
        "trust_remote_code": model.trust_remote_code,
        "load_format": "dummy",
        "dtype": str(dtype).removeprefix("torch."),
        "tp_size": engine.engine_tp_size,
        "skip_tokenizer_init": True,
        "skip_server_warmup": True,
        "sampling_backend": "pytorch",
        "log_level": "error",
    }
    on_device = _on_cpu(model, dtype) if device.type == "cpu" else _on_gpu(engine, device)
    asked = {name: yaml.safe_load(value) for name, _, value in (each.partition("=") for each in engine.engine_kwargs)}
    return {**shared, **on_device, **asked}


def _on_cpu(model: ModelArgs, dtype: torch.dtype) -> dict[str, Any]:
    from lightrft.models.suitable import read_config

    config = read_config(model).get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * width * dtype.itemsize
    return {
        "device": "cpu",
        "attention_backend": "torch_native",
        "disable_overlap_schedule": True,
        "disable_cuda_graph": True,
        "max_total_tokens": min(CPU_KV_TOKENS, CPU_KV_BYTES // token),
        "max_running_requests": 64,
    }


def _on_gpu(engine: EngineArgs, device: torch.device) -> dict[str, Any]:
    return {
        "device": "cuda",
        "base_gpu_id": device.index or 0,
        "mem_fraction_static": engine.engine_mem_util,
        "enable_memory_saver": engine.enable_engine_sleep,
    }


class SGLangEngine:
    """settings: of SGLang's Engine, by name. sleeps: whether its memory is given back at all."""

    shares_weights = False

    def __init__(
        self, settings: Mapping[str, Any], dtype: torch.dtype, end_ids: Iterable[int], *, sleeps: bool = True
    ) -> None:
        self.dtype, self.end_ids, self.sleeps, self.version = dtype, sorted(end_ids), sleeps, -1
        self.processes = int(settings.get("tp_size", 1))
        self.released: set[str] = set()  # the tags that are given back: to ask twice would end SGLang
        self.sizes: dict[str, int] = {}  # elements of each tensor that was pushed
        self.made = 0
        on_cpu = settings["device"] == "cpu"
        if on_cpu and sleeps:
            warn("SGLang has no memory to give back without a GPU: its sleep is simulated")
        self.start = partial(Host, "sglang", HOST, settings, {"SGLANG_USE_CPU_ENGINE": "1"} if on_cpu else {})
        self.host = self.start()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, at_once: int, enough: int | None = None
    ) -> list[list[Generation]]:
        """SGLang itself decides what is decoded together, and finishes all of it."""
        rows = [(request, seed) for request in requests for seed in request.seeds]
        prompts = [request.prompt_ids for request, _ in rows]
        made = self.host.ask("generate", prompts, [self._asked(sampling, seed) for _, seed in rows])
        answers = iter([self._generation(row[0], answer, sampling) for row, answer in zip(rows, made, strict=True)])
        self.made += len(rows)
        return [[next(answers) for _ in request.seeds] for request in requests]

    def _asked(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Of one request, in SGLang's words; its seeds are signed."""
        return {
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k if sampling.top_k > 0 else -1,
            "min_p": sampling.min_p,
            "ignore_eos": sampling.ignore_eos,
            "stop_token_ids": self.end_ids,
            "sampling_seed": (seed + SIGNED) % (2 * SIGNED) - SIGNED,
        }

    def _generation(self, request: Request, answer: Mapping[str, Any], sampling: Sampling) -> Generation:
        ids, how = tuple(answer["ids"]), answer["end"]
        if how["type"] == "abort":
            raise EngineFailed(f"--engine_type sglang: a request was given up: {how.get('message')}")
        stopped = not sampling.ignore_eos and bool(ids) and ids[-1] in self.end_ids
        if not stopped and len(ids) < sampling.max_new_tokens:
            room = f"{len(request.prompt_ids)} tokens and {sampling.max_new_tokens} new ones"
            raise RunFailed(f"--engine_type sglang: no room for {room}; raise --engine_kwargs max_total_tokens=")
        logprobs = tuple(math.nan if each is None else float(each) for each in answer["logprobs"])
        return Generation(request.prompt_ids, ids, logprobs, "stop" if stopped else "length")

    def update_weights(self, params: Iterable[tuple[str, Tensor]], version: int) -> None:
        self.host.ask("begin_weights")
        for bucket in _buckets(params):
            self.sizes.update((name, value.numel()) for name, value in bucket)
            self.host.ask("load_weights", [_pickled(bucket) for _ in range(self.processes)])
        self.host.ask("end_weights")
        self.version = version

    def fingerprints(self) -> Mapping[tuple[str, ...], int]:
        """By the trainer's names; a tensor that SGLang holds and nobody pushed has SGLang's own."""
        shards = self.host.ask("fingerprints")
        return {
            tuple(names.split()): self._whole(names.split(), [each[names] for each in shards]) for names in shards[0]
        }

    def _whole(self, names: Sequence[str], shards: Sequence[tuple[int, int]]) -> int:
        """shards: fingerprint and elements of what each process holds of the tensor. Several may hold the same."""
        elements = sum(self.sizes.get(name, 0) for name in names) or shards[0][1]
        alike = max(1, round(len(shards) * shards[0][1] / elements))
        different = next((n for n in range(len(shards)) if shards[n] != shards[n - n % alike]), None)
        if different is not None:  # of processes that should hold the same: what is wrong has to show
            return shards[different][0]
        return sum(number for number, _ in shards[::alike]) % (2 * SIGNED)

    def sleep(self, *, keep_weights: bool) -> None:
        """With `keep_weights` they stay where they are, and the room for keys and values alone is given back."""
        tags = {"kv_cache"} if keep_weights else {"kv_cache", "weights"}
        if self.sleeps and (new := tags - self.released):
            self.host.ask("release", sorted(new))
            self.released |= new

    def wake(self, what: Literal["weights", "kv_cache"]) -> None:
        if what in self.released:
            self.host.ask("resume", [what])
            self.released.discard(what)

    def restart(self) -> None:
        self.host.close()
        self.released.clear()
        self.host = self.start()

    def stats(self) -> dict[str, float]:
        found, self.made = {"engine_requests": float(self.made)}, 0
        return found

    def close(self) -> None:
        self.host.close()


def _buckets(params: Iterable[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
    """Copies, some at a time, each bucket's in one piece of memory that another process may share."""
    waiting: list[tuple[str, Tensor]] = []
    for name, value in params:
        waiting.append((name, value.detach()))
        if len(waiting) == BUCKET_TENSORS or sum(each.nbytes for _, each in waiting) >= BUCKET_BYTES:
            yield _copied(waiting)
            waiting = []
    if waiting:
        yield _copied(waiting)


def _copied(tensors: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """tensors: of one dtype and device."""
    import torch

    memory = torch.cat([value.reshape(-1) for _, value in tensors])
    parts = memory.split([value.numel() for _, value in tensors])
    return [(name, part.view(value.shape)) for (name, value), part in zip(tensors, parts, strict=True)]


def _pickled(named: Sequence[tuple[str, Tensor]]) -> bytes:
    """Handles of the tensors, not their contents. Each can be opened once: SGLang's processes get one each."""
    from multiprocessing.reduction import ForkingPickler

    import torch.multiprocessing  # noqa: F401 it teaches the pickler what a tensor is

    return bytes(ForkingPickler.dumps(list(named)))
