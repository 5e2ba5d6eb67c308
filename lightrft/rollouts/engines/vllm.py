"""vLLM: what it can do, its settings, and its making. Reading this file imports neither torch nor vLLM."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from lightrft.models.source import place
from lightrft.ranks.base import ONE_RANK
from lightrft.rollouts.engines import settings
from lightrft.rollouts.engines.base import InferenceEngine, Sampling

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.engine import EngineArgs
    from lightrft.args.groups.model import ModelArgs
    from lightrft.prompts.vision import Vision
    from lightrft.ranks.base import World

SET = {  # fields of vLLM's EngineArgs that cannot be given, and why
    "trust_remote_code": "--trust_remote_code sets it",
    "max_model_len": "--max_len sets it",
    "dtype": "--engine_dtype sets it",
    "gpu_memory_utilization": "--engine_mem_util sets it",
    "tensor_parallel_size": "--engine_tp_size sets it",
    "enable_sleep_mode": "--enable_engine_sleep sets it",
    "limit_mm_per_prompt": "--limit_mm_image_per_prompt sets it",
    "device_ids": "the engine is where the trainer is",
    "seed": "each sample has a seed of its own",
    "stream_interval": "each token is looked at as it comes, for the texts of --stop",
}
OTHERS = {  # the same, many for one reason
    "--pretrain sets it": "model tokenizer",
    "the model would not be the one that is trained": (
        "code_revision config_format convert disable_sliding_window enable_lora hf_config_path hf_overrides "
        "model_class_overrides model_weights revision runner tokenizer_revision"
    ),
    "the weights would not be those that are trained": "allow_deprecated_quantization quantization quantization_config",
    "it would report other log-probabilities": "spec_method spec_model spec_tokens speculative_config",
    "it would see other images than the trainer": (
        "mm_device_do_normalize mm_processor_kwargs video_pruning_method video_pruning_rate"
    ),
    "the trainer hands images over as they are": (
        "allowed_local_media_path allowed_media_domains enable_mm_embeds interleave_mm_strings language_model_only "
        "media_io_kwargs mm_encoder_only"
    ),
    "tokens would be drawn from another distribution": (
        "diffusion_config logits_processors reasoning_config watermark_config"
    ),
    "the flags of sampling say it": "generation_config override_generation_config",
    "keys and values of older weights would be used again": (
        "ec_transfer_config kv_offloading_backend kv_offloading_size kv_transfer_config"
    ),
    "an engine is spread by --engine_tp_size alone": (
        "decode_context_parallel_size master_addr master_port nnodes node_rank pipeline_parallel_size "
        "prefill_context_parallel_size"
    ),
    "each rank, or group of ranks, has an engine": (
        "data_parallel_address data_parallel_backend data_parallel_external_lb data_parallel_hybrid_lb "
        "data_parallel_multi_port_external_lb data_parallel_rank data_parallel_rpc_port data_parallel_size "
        "data_parallel_size_local data_parallel_start_rank"
    ),
    "it is set so that weights and log-probabilities are the trainer's": (
        "distributed_executor_backend enable_batch_sharded_sampling load_format logprobs_mode skip_tokenizer_init "
        "weight_transfer_config worker_cls worker_extension_cls"
    ),
}
SET |= {name: why for why, names in OTHERS.items() for name in names.split()}
MOVING = ("qwen2_vl", "qwen3_vl")
UNMOVED = {"qwen2_5_vl": "vLLM counts the positions behind a long video otherwise than transformers"}
LEAST_TEMPERATURE = 0.01  # a lower one than this it raises to this, but for 0


def unsupported(sampling: Sampling) -> str | None:
    """What it cannot do of that. vLLM takes min_p first, which with top_k alone comes to the same."""
    if sampling.first_temperature is not None:
        return "vLLM cannot sample the first token at a temperature of its own (--use_fire)"
    if sampling.returns_mask:
        return "what filters keep is not asked of vLLM (--replay_sampling_mask beside --top_p, --top_k or --min_p)"
    if sampling.min_p > 0 and sampling.top_p < 1:
        return f"vLLM takes --min_p {sampling.min_p:g} before --top_p {sampling.top_p:g} and not after it"
    if 0 < sampling.temperature < LEAST_TEMPERATURE:
        between = f"between 0 and {LEAST_TEMPERATURE:g}"
        return f"vLLM samples at no temperature {between}, and {sampling.temperature:g} is asked for"
    return None


def import_fault() -> str | None:
    """Why it cannot be imported, where that is so. It costs some seconds, which vLLM's start then does not."""
    from lightrft.rollouts.engines import vllm_process

    return vllm_process.import_fault()


def images_fault(model: ModelArgs, config: Any, device: str | None) -> str | None:
    """Why it cannot take images for that model, where that is so. device: None where vLLM is not there to be asked."""
    named = getattr(config, "architectures", None) or [type(config).__name__]
    if device is None:
        return None
    from vllm import ModelRegistry  # pyright: ignore

    from lightrft.rollouts.engines.vllm_process import reads_images_both_ways

    if not set(named) & set(ModelRegistry.get_supported_archs()):
        return f"vLLM knows no {' or '.join(named)}"
    if device == "cpu" and reads_images_both_ways(place(model), model.trust_remote_code):
        return f"without a GPU vLLM's tokens of an image do not see later ones, as those of {config.model_type} do"
    return None


def videos_fault(config: Any) -> str | None:
    """Why it cannot take videos for that model, where that is so."""
    if config.model_type in MOVING:
        return None
    why = UNMOVED.get(config.model_type, "it was not tried")
    return f"videos reach vLLM for {', '.join(MOVING)} alone, and not for {config.model_type}: {why}"


def settings_fault(model: ModelArgs, engine: EngineArgs, device: str) -> str | None:
    """What is wrong with settings of --engine_kwargs: their names, and values that vLLM's own configuration refuses."""
    if fault := import_fault():
        return fault
    from vllm.engine.arg_utils import EngineArgs as TheirArgs  # pyright: ignore

    from lightrft.rollouts.engines.vllm_process import config_fault

    pairs, names = engine.engine_kwargs, [each.name for each in fields(TheirArgs)]
    if fault := settings.settings_fault(pairs, names, SET, "vLLM"):
        return fault
    without = {**_chosen(model, replace(engine, engine_kwargs=[]), device), "tensor_parallel_size": 1}
    fault = config_fault({**without, **settings.read_settings(pairs)})
    if not fault or config_fault(without):  # where it is not the settings' fault its start tells more
        return None
    wrong = [pair for pair in pairs if config_fault({**without, **settings.read_settings([pair])})]
    return f"--engine_kwargs {' '.join(wrong or pairs)}: vLLM refuses it: {fault}"


def make(
    model: ModelArgs,
    engine: EngineArgs,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: Iterable[int],
    dtype: torch.dtype,
    world: World,
    vision: Vision | None = None,
    videos: bool = False,
) -> InferenceEngine:
    """One engine for each rank to ask, alone or as one of `engine_tp_size` neighbours. vision: how the trainer reads
    images, of a model that sees. videos: whether prompts have any."""
    from lightrft.rollouts.engines.tp_group import EngineRanks, TPGroup
    from lightrft.rollouts.engines.vllm_engine import VLLMEngine

    chosen = _chosen(model, engine, world.device.type)
    if world.size > 1:
        chosen["distributed_executor_backend"] = "external_launcher"
    if vision is not None:  # its processor writes placeholders in the tokenizer's ids
        chosen |= {"skip_tokenizer_init": False, "limit_mm_per_prompt": _limits(engine, videos)}
    ranks = EngineRanks(world, engine.engine_tp_size) if engine.engine_tp_size > 1 else ONE_RANK
    number = ranks.agree(time.time_ns()) or 0
    made = VLLMEngine(chosen, tokenizer, end_ids, dtype, number, settings.given(engine.engine_kwargs), vision)
    return made if ranks.size == 1 else TPGroup(made, ranks, dtype)


def _limits(engine: EngineArgs, videos: bool) -> dict[str, int]:
    """Of one prompt. Room is kept for the largest that may come; without a flag vLLM takes any number of images."""
    images = engine.limit_mm_image_per_prompt
    return {**({} if images is None else {"image": images}), **({} if videos else {"video": 0})}


def _chosen(model: ModelArgs, engine: EngineArgs, device: str) -> dict[str, Any]:
    """Fields of vLLM's EngineArgs. On a CPU compiling costs a minute and gains little; a prompt is read whole, since
    vLLM winds a sample's generator back behind each part of one, which generators of a CPU cannot."""
    on_gpu = {"gpu_memory_utilization": engine.engine_mem_util, "enable_sleep_mode": engine.enable_engine_sleep}
    return {
        "model": place(model),
        "trust_remote_code": model.trust_remote_code,
        "max_model_len": model.max_len,
        "tensor_parallel_size": engine.engine_tp_size,
        **({"enforce_eager": True, "enable_chunked_prefill": False} if device == "cpu" else on_gpu),
        **settings.read_settings(engine.engine_kwargs),
    }
