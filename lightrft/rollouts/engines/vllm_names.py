"""Names of tensors: the trainer's, which are Hugging Face's, and vLLM's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import nn

Names = tuple[str, ...]
INNER = "vision_model"
FUSED = {  # by nearly every model of vLLM, whether it says so or its layers alone
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    **dict.fromkeys(("gate_proj", "up_proj"), "gate_up_proj"),
}


def wrappers(model: nn.Module) -> list[str]:
    """Names of modules that hold a tower as `vision_model` and nothing else: a level that newer versions of Hugging
    Face's models have not."""
    holding = [(name, [child for child, _ in module.named_children()]) for name, module in model.named_modules()]
    return [name.rpartition(".")[2] for name, children in holding if children == [INNER]]


def as_loaded(name: str, wrappers: Sequence[str]) -> str:
    """The trainer's name as vLLM's loader takes it."""
    words = name.split(".")
    for place, (word, inner) in enumerate(zip(words, words[1:], strict=False), 1):
        if word in wrappers and inner != INNER:
            return ".".join([*words[:place], INNER, *words[place:]])
    return name


def made_of(model: Any, names: Iterable[str], held: Collection[str]) -> dict[str, Names]:
    """Of each tensor that is held, the trainer's names of its parts, in the order in which they came."""
    mapper, within, fused = getattr(model, "hf_to_vllm_mapper", None), wrappers(model), _fused(model)
    experts = model.get_expert_mapping() if hasattr(model, "get_expert_mapping") else ()
    found: dict[str, list[str]] = {}
    for name in names:
        loaded = as_loaded(name, within)
        for mapped in [loaded] if mapper is None else mapper.apply_list([loaded]):
            for candidate in _candidates(mapped, fused, experts):
                if candidate in held:
                    found.setdefault(candidate, []).append(name)
                    break
    return {name: tuple(parts) for name, parts in found.items()}


def _candidates(name: str, fused: dict[str, str], experts: Iterable[Any]) -> Iterator[str]:
    """What a tensor may be a part of: a tower may keep apart what the text model fuses, so the name itself is first."""
    for mapped in (name, ".".join(fused.get(word, word) for word in name.split("."))):
        for whole, part, *_ in experts:
            mapped = mapped.replace(part, whole)
        yield mapped


def _fused(model: nn.Module) -> dict[str, str]:
    """By each part of the model, which may be one of vLLM's models itself."""
    told = [getattr(module, "packed_modules_mapping", None) or {} for module in model.modules()]
    return FUSED | {part: whole for each in told for whole, parts in each.items() for part in parts}
