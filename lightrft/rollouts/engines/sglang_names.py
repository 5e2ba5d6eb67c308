"""Names of tensors: the trainer's, which are Hugging Face's, and those of SGLang's modules."""

from __future__ import annotations

FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
TOWER = "visual."
PARTS = {"model.language_model.": "model.", f"model.{TOWER}": TOWER}  # of a model that sees


def as_loaded(name: str) -> str:
    """The trainer's name as SGLang's loader takes it."""
    for part, theirs in PARTS.items():
        if name.startswith(part):
            return theirs + name.removeprefix(part)
    return name


def made_of(name: str, sees: bool) -> tuple[str, ...]:
    """The trainer's names of what SGLang's module holds under `name`. sees: whether it is a model that sees."""
    layer = name.rpartition(".")[0].rpartition(".")[2]
    if sees and name.startswith(TOWER) and layer == "qkv_proj":  # the trainer's tower has it in one piece too
        return (_whole(name.replace(layer, "qkv")),)
    found = tuple(name.replace(layer, part) for part in FUSED.get(layer, ())) or (name,)
    return tuple(map(_whole, found)) if sees else found


def _whole(name: str) -> str:
    for part, theirs in PARTS.items():
        if name.startswith(theirs):
            return part + name.removeprefix(theirs)
    return name
