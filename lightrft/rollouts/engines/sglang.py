"""SGLang: what it can do, its settings, and its making. Reading this file imports neither torch nor SGLang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.source import place
from lightrft.rollouts.engines import settings
from lightrft.rollouts.engines.base import InferenceEngine, Sampling
from lightrft.rollouts.engines.hosted import environment

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.engine import EngineArgs
    from lightrft.args.groups.model import ModelArgs
    from lightrft.prompts.vision import Vision
    from lightrft.ranks.base import World

HOST, CHECK = "lightrft.rollouts.engines.sglang_host", "lightrft.rollouts.engines.sglang_settings"
SET = {  # fields of SGLang's ServerArgs that cannot be given, and why
    "model_path": "--pretrain sets it",
    "tokenizer_path": "--pretrain sets it",
    "trust_remote_code": "--trust_remote_code sets it",
    "context_length": "--max_len sets it",
    "dtype": "--engine_dtype sets it",
    "mem_fraction_static": "--engine_mem_util sets it",
    "tp_size": "--engine_tp_size sets it",
    "enable_memory_saver": "--enable_engine_sleep sets it",
    "device": "the engine is where the trainer is",
    "base_gpu_id": "the engine is where the trainer is",
    "dp_size": "each rank, or group of ranks, has an engine",
    "use_ray": "the engine is a child of the trainer",
    "random_seed": "--seed sets it, for each response",
    "speculative_algorithm": "it would report other log-probabilities",
    "stream_interval": "it is how often the trainer hears that work goes on",
    "incremental_streaming_output": "an answer is read as a whole, and would be its last tokens alone",
    "sampling_mask_max_tokens": "no token is left out of what --replay_sampling_mask replays",
    "allow_auto_truncate": "a prompt is answered as it was given, or told to be too long",
}
SET |= {
    name: why
    for why, names in {
        "it is set so that weights, seeds and log-probabilities are the trainer's": (
            "enable_deterministic_inference rl_on_policy_target load_format custom_weight_loader sampling_backend "
            "skip_tokenizer_init skip_server_warmup"
        ),
        "an engine is spread by --engine_tp_size alone": (
            "pp_size ep_size dcp_size attn_cp_size attn_dp_size moe_dp_size moe_dense_tp_size dwdp_size "
            "enable_dp_attention enable_prefill_cp nnodes node_rank gpu_id_step"
        ),
        "the weights would not be those that are trained": (
            "quantization quantize_and_serve modelopt_quant revision json_model_override_args enable_lora lora_paths "
            "uno_lora_path"
        ),
        "it would draw by other rules than those of the flags": (
            "preferred_sampling_params dllm_algorithm enable_watermark watermark_config watermark_default_enabled "
            "watermark_enforce_all"
        ),
        "the engine has to answer each request by itself": "disaggregation_mode encoder_only is_embedding",
    }.items()
    for name in names.split()
}
SEEING = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
UNSEEING = {  # what SGLang 0.5.23 does with them
    "llava": "SGLang cannot make its tower",
    "idefics3": "SGLang takes its prompts as text, and not as token ids",
    "gemma3": "SGLang knows its tower by other names",
}
SPARE = 6  # tokens of its context that SGLang keeps back: 2 of prompt and response together, 5 of the prompt and 1 more
CPU_KV_BYTES, CPU_KV_TOKENS = 1 << 30, 1 << 16  # room for keys and values without a GPU: the smaller of the two


def unsupported(sampling: Sampling) -> str | None:
    """What it cannot do of that: with the adapter's sampler nearly nothing."""
    if sampling.first_temperature is not None and sampling.temperature == 0:
        return "SGLang draws no token where the temperature is 0, so the first one neither (--use_fire)"
    return None


def import_fault() -> None:
    """Its own process says so when it starts: asking it before would import it twice."""


def images_fault(model: ModelArgs, config: Any, device: str | None) -> str | None:
    """Why it cannot take images for that model, where that is so."""
    if config.model_type in SEEING:
        return None
    why = UNSEEING.get(config.model_type, "it was not tried")
    return f"images reach SGLang for {', '.join(SEEING)} alone, and not for {config.model_type}: {why}"


def videos_fault(config: Any) -> str:
    """Why it cannot take videos."""
    return "SGLang takes the frames of a video by its own rule, and not those that the trainer has taken"


def settings_fault(model: ModelArgs, engine: EngineArgs, device: str) -> str | None:
    """What is wrong with settings of --engine_kwargs. SGLang is asked what it says to them in another process."""
    import torch

    pairs = engine.engine_kwargs
    if fault := settings.settings_fault(pairs, None, SET, "SGLang"):
        return fault
    chosen = _chosen(model, engine, torch.float32, torch.device(device))
    asked = {"chosen": chosen, "by_hand": list(settings.read_settings(pairs))}
    told = _told(json.dumps(asked), json.dumps(_variables(model, chosen)))
    if fault := settings.settings_fault(pairs, told["names"], SET, "SGLang"):
        return fault
    wrong = [pair for pair in pairs if pair.partition("=")[0].replace("-", "_") == told["name"]]
    return f"--engine_kwargs {' '.join(wrong or pairs)}: {told['fault']}" if told["fault"] else None


@cache
def _told(asked: str, variables: str) -> dict[str, Any]:
    """What sglang_settings.py answers to it."""
    about = {"env": {**environment(), **json.loads(variables)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-m", CHECK], input=asked, **about)
    if done.returncode:
        raise Refused(f"--engine_type sglang: it cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def make(
    model: ModelArgs,
    engine: EngineArgs,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Iterable[int],
    dtype: torch.dtype,
    world: World,
    vision: Vision | None = None,
) -> InferenceEngine:
    """One engine for each rank, or one in the process of the first of `engine_tp_size` neighbours. vision: how the
    trainer reads images, of a model that sees."""
    from lightrft.ranks.base import ONE_RANK
    from lightrft.rollouts.engines.sglang_engine import SGLangEngine
    from lightrft.rollouts.engines.tp_group import EngineRanks, TPGroup

    ranks = EngineRanks(world, engine.engine_tp_size) if engine.engine_tp_size > 1 else ONE_RANK
    chosen = _chosen(model, engine, dtype, world.device)
    about = {"variables": _variables(model, chosen), "given": settings.given(engine.engine_kwargs)}
    about |= {"max_len": model.max_len, "sleeps": engine.enable_engine_sleep, "vision": vision}
    made = SGLangEngine(HOST, chosen, tokenizer, end_ids, dtype, **about) if ranks.rank == 0 else None
    return TPGroup(made, ranks, dtype) if ranks.size > 1 or made is None else made


def _chosen(model: ModelArgs, engine: EngineArgs, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Fields of ServerArgs. The weights are not read from the disk: they come from the trainer."""
    shared = {
        "model_path": place(model),
        "trust_remote_code": model.trust_remote_code,
        "load_format": "dummy",
        "context_length": model.max_len + SPARE,
        "dtype": str(dtype).removeprefix("torch."),
        "tp_size": engine.engine_tp_size,
        "skip_tokenizer_init": True,
        "skip_server_warmup": True,
        "sampling_backend": "pytorch",
        "stream_interval": 50,
        "log_level": "error",
    }
    if engine.replay_sampling_mask:
        shared["sampling_mask_max_tokens"] = _vocabulary(model)
    on_device = _on_cpu(model, dtype) if device.type == "cpu" else _on_gpu(engine, device)
    return {**shared, **on_device, **settings.read_settings(engine.engine_kwargs)}


def _vocabulary(model: ModelArgs) -> int:
    from lightrft.models.suitable import read_config

    return read_config(model).get_text_config().vocab_size


def _on_cpu(model: ModelArgs, dtype: torch.dtype) -> dict[str, Any]:
    from lightrft.models.suitable import read_config

    config = read_config(model).get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * width * dtype.itemsize
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


def _variables(model: ModelArgs, chosen: dict[str, Any]) -> dict[str, str]:
    """Of its environment. A --max_len that the model has positions for is taken, though SPARE goes beyond them."""
    from lightrft.models.suitable import read_config

    positions = getattr(read_config(model).get_text_config(), "max_position_embeddings", None) or 0
    fits = {"SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1"} if model.max_len <= positions else {}
    if chosen["device"] != "cpu":
        return fits
    cores, processes = sorted(os.sched_getaffinity(0)), chosen["tp_size"]
    shares = [cores[n::processes] or cores for n in range(processes)]  # asked for, where there are several
    bound = "|".join(",".join(map(str, share)) for share in shares)
    on_cores = {"SGLANG_CPU_OMP_THREADS_BIND": bound} if processes > 1 else {}
    return {**fits, "SGLANG_USE_CPU_ENGINE": "1", **on_cores}
