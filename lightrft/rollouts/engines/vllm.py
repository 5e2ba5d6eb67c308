"""vLLM: what it can do, its settings, and its making. Reading this file imports neither torch nor vLLM."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lightrft.errors import warn
from lightrft.models.source import place
from lightrft.ranks.base import ONE_RANK
from lightrft.rollouts.engines import settings
from lightrft.rollouts.engines.base import InferenceEngine, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.engine import EngineArgs
    from lightrft.args.groups.model import ModelArgs
    from lightrft.ranks.base import World

SET = {  # fields of vLLM's EngineArgs that cannot be given, and why
    "model": "--pretrain sets it",
    "tokenizer": "--pretrain sets it",
    "trust_remote_code": "--trust_remote_code sets it",
    "max_model_len": "--max_len sets it",
    "dtype": "--engine_dtype sets it",
    "gpu_memory_utilization": "--engine_mem_util sets it",
    "tensor_parallel_size": "--engine_tp_size sets it",
    "enable_sleep_mode": "--enable_engine_sleep sets it",
    "limit_mm_per_prompt": "--limit_mm_image_per_prompt sets it",
    "pipeline_parallel_size": "an engine is spread by --engine_tp_size alone",
    "data_parallel_size": "each rank, or group of ranks, has an engine",
    "quantization": "the weights would not be those that are trained",
    "speculative_config": "it would report other log-probabilities",
} | dict.fromkeys(
    ("distributed_executor_backend", "load_format", "logprobs_mode", "skip_tokenizer_init", "worker_extension_cls"),
    "it is set so that weights and log-probabilities are the trainer's",
)


def unsupported(sampling: Sampling) -> str | None:
    """What it cannot do of that. vLLM takes min_p first, which with top_k alone comes to the same."""
    if sampling.first_temperature is not None:
        return "vLLM cannot sample the first token at a temperature of its own (--use_fire)"
    if sampling.min_p > 0 and sampling.top_p < 1:
        return f"vLLM takes --min_p {sampling.min_p:g} before --top_p {sampling.top_p:g} and not after it"
    return None


def settings_fault(engine_kwargs: Sequence[str]) -> str | None:
    """What is wrong with settings of --engine_kwargs."""
    from lightrft.rollouts.engines.vllm_process import set_environment

    set_environment()
    from vllm.engine.arg_utils import EngineArgs as TheirArgs  # pyright: ignore

    return settings.settings_fault(engine_kwargs, [each.name for each in fields(TheirArgs)], SET, "vLLM")


def make(
    model: ModelArgs,
    engine: EngineArgs,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Iterable[int],
    dtype: torch.dtype,
    world: World,
) -> InferenceEngine:
    """One engine for each rank to ask, alone or as one of `engine_tp_size` neighbours."""
    from lightrft.rollouts.engines.tp_group import EngineRanks, TPGroup
    from lightrft.rollouts.engines.vllm_engine import VLLMEngine

    chosen: dict[str, Any] = {
        "model": place(model),
        "trust_remote_code": model.trust_remote_code,
        "max_model_len": model.max_len,
        "tensor_parallel_size": engine.engine_tp_size,
        **settings.read_settings(engine.engine_kwargs),
    }
    if world.size > 1:
        chosen["distributed_executor_backend"] = "external_launcher"
    if world.device.type == "cuda":
        chosen |= {"gpu_memory_utilization": engine.engine_mem_util, "enable_sleep_mode": engine.enable_engine_sleep}
    else:
        chosen.setdefault("enforce_eager", True)  # compiling costs a minute and gains little on a CPU
        if engine.enable_engine_sleep:
            warn("vLLM has no memory to give back without a GPU: its sleep is simulated")
    ranks = EngineRanks(world, engine.engine_tp_size) if engine.engine_tp_size > 1 else ONE_RANK
    number = ranks.agree(time.time_ns()) or 0
    made = VLLMEngine(chosen, tokenizer, end_ids, dtype, number)
    return made if ranks.size == 1 else TPGroup(made, ranks, dtype)
