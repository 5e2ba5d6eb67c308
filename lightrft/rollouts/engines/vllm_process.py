"""What starting vLLM takes, and what it must not do to the trainer's process."""

from __future__ import annotations

import copy
import gc
import logging
import os
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightrft.errors import Refused, RunFailed, error_text
from lightrft.rollouts.engines.vllm_transfer import transfer_settings

ENVIRONMENT = {  # where the user has not set them
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # whose sampler we cannot make report what the trainer computes
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it takes no seeds, so it would only be compiled
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
EXTENSION = "lightrft.rollouts.engines.vllm_worker.WorkerExtension"
NO_KV_MEMORY = ("kv cache", "cache blocks", "gpu_memory_utilization", "gpu memory utilization", "max seq len")


def start(chosen: Mapping[str, Any], number: int, given: str = "", processor: Any = None) -> Any:
    """A `vllm.LLM` with weights of no meaning. chosen: fields of its EngineArgs. number: the engine's, alike on all
    ranks that share it. given: the end of the line that says why it cannot be had. processor: the trainer's, of a model
    that sees."""
    if fault := import_fault():
        raise Refused(f"{fault}; install it anew, or use --engine_type local")
    with undisturbed(), _quiet():
        from vllm import LLM  # pyright: ignore

        _keep_the_trainers_groups()
        _keep_the_trainers_memory()
        _name_shared_memory(number)
        _keep_what_is_no_weight()
        ours = {"load_format": "dummy", "skip_tokenizer_init": True, "worker_extension_cls": EXTENSION}
        if processor is not None:
            _read_with(processor)
            ours |= _normalised_once()
        try:
            llm = LLM(**{**ours, **chosen, **transfer_settings()})
            llm.collective_rpc("lightrft_prepare")
        except Exception as error:
            raise RunFailed(f"{_refusal(error)}{given}") from error
    return llm


@cache
def import_fault() -> str | None:
    """Why vLLM cannot be imported, where that is so: its libraries may be for another CUDA, its packages may lack."""
    set_environment()
    with undisturbed(), _quiet():
        try:
            from vllm import LLM  # noqa: F401  # pyright: ignore
        except Exception as error:  # of any kind: it is the work of many packages
            return f"vllm cannot be imported: {error_text(error, most=300)}"
    return None


def config_fault(chosen: Mapping[str, Any]) -> str | None:
    """Why vLLM can make no configuration of them, where that is so. It takes a second at most; nothing is started."""
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore

    with undisturbed(), _quiet():
        try:
            EngineArgs(**chosen, skip_tokenizer_init=True).create_engine_config()
        except Exception as error:
            return _reasons(error) or error_text(error, most=300)
    return None


@cache
def reads_images_both_ways(model: str, trust: bool) -> bool:
    """Whether tokens of an image see later ones of it, as vLLM says of the model."""
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore

    with undisturbed(), _quiet():
        asked = EngineArgs(model=model, trust_remote_code=trust)
        return bool(getattr(asked.create_model_config(), "is_mm_prefix_lm", False))


def _reasons(error: Exception) -> str:
    """Of one of pydantic's errors, without the lines around them."""
    each = error.errors() if hasattr(error, "errors") else ()  # pyright: ignore
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in each)


def end(llm: Any, number: int) -> None:
    """Its memory and its own process groups go, each though another could not; then the last such error is raised."""
    from vllm.distributed import parallel_state  # pyright: ignore

    with ExitStack() as last_first:
        last_first.callback(_remove_shared_memory, number)
        last_first.callback(gc.collect)
        last_first.callback(parallel_state.cleanup_dist_env_and_memory)
        llm.llm_engine.engine_core.shutdown()


def _remove_shared_memory(number: int) -> None:
    for left in Path("/dev/shm").glob(f"*tp:{number}*cpushm*"):
        left.unlink(missing_ok=True)  # the other rank may have been first


def _keep_the_trainers_groups() -> None:
    """vLLM ends torch.distributed with its engine, and the trainer goes on with its groups: only vLLM's end here."""
    from vllm.distributed import parallel_state  # pyright: ignore

    def leave() -> None:
        if parallel_state._WORLD is not None:
            parallel_state._WORLD.destroy()
            parallel_state._WORLD = None

    parallel_state.destroy_distributed_environment = leave


def _keep_the_trainers_memory() -> None:
    """Without a GPU vLLM binds what its process allocates to one NUMA node: here the trainer's memory too."""
    setattr(torch.ops._C, "init_cpu_memory_env", lambda nodes: None)  # noqa: B010


def _keep_what_is_no_weight() -> None:
    """Where it reads no weights vLLM fills buffers at random too, such as the mean and the deviation of pixels: no push
    would bring them back."""
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader  # pyright: ignore

    load = DummyModelLoader.load_weights
    if load.__module__ == __name__:
        return

    def load_weights(self: Any, model: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
        load(self, model, *args, **kwargs)
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])

    DummyModelLoader.load_weights = load_weights


def _read_with(processor: Any) -> None:
    """Images are read with a copy of it, where it is of the class that vLLM asks for; else with that of the model's
    folder, which may be another than --processor."""
    from vllm.multimodal.processing import context  # pyright: ignore

    load = getattr(context.cached_processor_from_config, "lightrft_original", context.cached_processor_from_config)
    copied = copy.deepcopy(processor)

    def found(model_config: Any, processor_cls: Any, **kwargs: Any) -> Any:
        if isinstance(copied, processor_cls):
            return copied
        return load(model_config, processor_cls=processor_cls, **kwargs)

    setattr(found, "lightrft_original", load)  # noqa: B010
    context.cached_processor_from_config = found


def _normalised_once() -> dict[str, Any]:
    """By the processor. Newer versions leave it to the model, by the mean and deviation of images in its folder."""
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore

    name = "mm_device_do_normalize"
    return {name: False} if any(field.name == name for field in fields(EngineArgs)) else {}


def _name_shared_memory(number: int) -> None:
    """On a CPU workers that share an engine talk through files of /dev/shm, named after a counter alone: beside one
    that a killed run has left, or that another run has open, vLLM would not start."""
    from vllm.distributed import parallel_state  # pyright: ignore

    parallel_state._group_name_counter["tp"] = number


def _refusal(error: Exception) -> str:
    text = error_text(error, most=400)
    if not any(words in text.lower() for words in NO_KV_MEMORY):
        return f"vLLM cannot be started: {text}"
    where = "raise --engine_mem_util" if torch.cuda.is_available() else "set VLLM_CPU_KVCACHE_SPACE to more GiB"
    return f"vLLM has no room for keys and values; {where}, or lower --max_len: {text}"


def set_environment() -> None:
    """vLLM reads it when it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in another process weights could not be streamed to it
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # it logs before it has looked there


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """vLLM seeds and draws the process's random numbers and takes `torch.set_num_threads` away: the trainer's, both."""
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_num_threads = set_threads
        set_threads(threads)
