"""What runs inside vLLM's worker: its sampler reports what the trainer computes, and its tensors can be told apart.

vLLM makes `WorkerExtension` a base of its worker's class, so `self` is the worker. The executor is in this process:
what is passed and returned is not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightrft.models.fingerprint import fingerprint
from lightrft.models.vision import placeholders
from lightrft.rollouts.engines.vllm_names import Names, made_of, wrappers


class WorkerExtension:
    model_runner: Any

    def lightrft_prepare(self) -> None:
        """Once, before the first weights come."""
        _report_tempered(self.model_runner.sampler, placeholders(self.model_runner.model_config.hf_config))
        model = self.model_runner.get_model()
        if next(model.parameters()).device.type == "cpu":
            _note_what_is_packed(model)

    def lightrft_wrappers(self) -> list[str]:
        return wrappers(self.model_runner.get_model())

    def lightrft_fingerprints(self, sizes: Mapping[str, int]) -> dict[Names, int]:
        """Of this worker's share of each tensor; those of a group of workers add up to that of the whole one.
        sizes: elements of each of the trainer's tensors."""
        model, dtype = self.model_runner.get_model(), self.model_runner.model_config.dtype
        held = {each.name: each for each in _held(model)}
        found: dict[Names, int] = {}
        for name, parts in made_of(model, sizes, held).items():
            if held[name].dtype == dtype:  # else vLLM keeps it in another precision, and its bits cannot be the same
                whole = sum(sizes[part] for part in parts)
                found[parts] = held[name].print if held[name].counts(whole) else 0
        return found


# the sampler


class Tempered:
    """Before its class of vLLM: log-probabilities are of the temperature-scaled distribution before the filters, at
    temperature 0 of the unscaled one. unwritten: ids that have no probability, as in the trainer's model."""

    unwritten: Tensor

    def sample(self: Any, logits: Tensor, metadata: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        logits.index_fill_(-1, self.unwritten.to(logits.device), float("-inf"))
        logprobs = None
        if metadata.max_num_logprobs is not None:
            scaled = logits.to(torch.float32, copy=True)
            if not metadata.all_greedy:
                scaled = self.apply_temperature(scaled, metadata.temperature, metadata.all_random)
            logprobs = scaled.log_softmax(-1)
        sampled, _ = super().sample(logits, metadata, *args, **kwargs)  # type: ignore[misc]
        return sampled, logprobs

    @staticmethod
    def gather_logprobs(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> Any:
        """Of the sampled token alone; its rank is not looked for, which costs a pass and a compilation."""
        from vllm.v1.outputs import LogprobsTensors  # pyright: ignore

        picked = token_ids[:, None]
        return LogprobsTensors(
            picked.int(), logprobs.gather(-1, picked), torch.zeros_like(token_ids, dtype=torch.int32)
        )


def _report_tempered(sampler: Any, unwritten: Sequence[int]) -> None:
    """Changes the class of the sampler that is there: others hold it too."""
    if not isinstance(sampler, nn.Module):
        raise RuntimeError("its second model runner reports other log-probabilities; unset VLLM_USE_V2_MODEL_RUNNER")
    setattr(sampler, "__class__", type("TemperedSampler", (Tempered, type(sampler)), {}))  # noqa: B010
    setattr(sampler, "unwritten", torch.tensor(unwritten, dtype=torch.long))  # noqa: B010
    setattr(sampler, "logprobs_mode", "processed_logprobs")  # noqa: B010  those that `sample` returns, and no others


# fingerprints


@dataclass(frozen=True)
class Held:
    """A tensor of one layer, by vLLM's name. print: of what no other worker of the group has too, or of all of it."""

    name: str
    layer: Any
    dtype: torch.dtype
    elements: int
    print: int

    def counts(self, whole: int) -> bool:
        """Whether this worker counts, where each of the group has all `whole` elements: the first one alone does."""
        from vllm.distributed.parallel_state import get_tensor_model_parallel_rank  # pyright: ignore

        shared = self.elements == whole and not hasattr(self.layer, "shard_indices")  # of the vocabulary
        return not shared or get_tensor_model_parallel_rank() == 0


def _held(model: nn.Module) -> Iterator[Held]:
    for prefix, layer in model.named_modules(remove_duplicate=False):
        packed: dict[str, Held] = getattr(layer, "lightrft_packed", {})
        for name, value in layer.named_parameters(recurse=False):
            yield replace(packed.get(name) or _hold(name, layer, value), name=f"{prefix}.{name}")


def _hold(name: str, layer: Any, value: Tensor) -> Held:
    return Held(name, layer, value.dtype, value.numel(), fingerprint(_own_rows(layer, value)))


def _own_rows(layer: Any, value: Tensor) -> Tensor:
    """Without the rows that fill a vocabulary up, and without the keys and values that a worker with a lower rank has
    too, where there are fewer heads than workers."""
    if hasattr(layer, "shard_indices"):
        return value[: layer.shard_indices.num_org_elements]
    copies = getattr(layer, "num_kv_head_replicas", 1)
    if copies == 1 or layer.tp_rank % copies == 0:
        return value
    return value[: layer.num_heads * layer.head_size]


def _note_what_is_packed(model: nn.Module) -> None:
    """On a CPU vLLM packs a layer's weights for its matrix product, and drops them or goes on with an older packed copy
    beside a new tensor. So the fingerprint is that of what was packed."""
    for layer in model.modules():
        method: Any = getattr(layer, "quant_method", None)
        if hasattr(method, "process_weights_after_loading"):
            method.process_weights_after_loading = _noting(method.process_weights_after_loading)


def _noting(process: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
    def noted(layer: Any) -> None:
        layer.lightrft_packed = {
            name: _hold(name, layer, value) for name, value in layer.named_parameters(recurse=False)
        }
        process(layer)

    return noted
