"""The step of one token on a CPU, of models of the plain architecture: operation by operation, without their modules.

Of a small model's step most of the time is what the library does around its operations. Llama's architecture has few
of them: norm, one product for queries, keys and values, rotary positions, attention over the cache that is there
already, three more products. They read the weights that `packed` has laid out, and round where the library rounds.
The first step of a model is computed in both ways, and their logits are compared; the first one beside padding, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

from lightrft.rollouts.engines.attention import attend
from lightrft.rollouts.engines.local.packed import Products
from lightrft.rollouts.engines.local.replay import compare, tell
from lightrft.rollouts.engines.threads import one_thread

if TYPE_CHECKING:
    from lightrft.rollouts.engines.kv_cache import RoomyLayer
    from lightrft.rollouts.engines.local.past import Past

KINDS = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}  # model_type: its classes' names
OF_MODEL = {"": "ForCausalLM", "model": "Model", "model.norm": "RMSNorm", "model.rotary_emb": "RotaryEmbedding"}
OF_LAYER = {
    "": "DecoderLayer", "self_attn": "Attention", "mlp": "MLP",
    "input_layernorm": "RMSNorm", "post_attention_layernorm": "RMSNorm",
}  # fmt: skip
OF_HEADS = {"self_attn.q_norm": "RMSNorm", "self_attn.k_norm": "RMSNorm"}
NORMS_HEADS = {"qwen3"}
ROTARY = ("default", "linear", "llama3", "yarn")  # others have frequencies that change with the length
SHARE = {torch.float32: 1e-3}  # of the largest logit, by which the two ways may differ
SHARE_IN_16_BITS = 0.05
KNOWN_HOOKS = (  # of modules, by whose they are: they do nothing to whole weights, or to what nobody asked to be shown
    "torch.distributed.fsdp.", "deepspeed.", "transformers.utils.output_capturing",
)  # fmt: skip
_trusted: dict[bool, WeakSet[nn.Module]] = {False: WeakSet(), True: WeakSet()}  # without padding, beside it
_refused: WeakSet[nn.Module] = WeakSet()


class Plain:
    """The tensors of `model` as they are now, for one generation."""

    def __init__(self, model: Any, products: Products) -> None:
        self.model, self.head = model, model.lm_head
        self.embed, self.rotary, self.norm = model.model.embed_tokens, model.model.rotary_emb, _Norm(model.model.norm)
        self.layers = [_Layer(layer, products) for layer in model.model.layers]


def plain_of(model: Any, products: Products) -> Plain | None:
    """None of a model of another architecture, of one that is not on a CPU, or whose layers compute something else."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    known = on_cpu and model not in _refused and _is_plain(model)
    if not known or not all(products.can(linears) for layer in model.model.layers for linears in _one_input(layer)):
        return None
    return Plain(model, products)


def _is_plain(model: Any) -> bool:
    """From outside to inside: what a class of its own calls its parts, or whether it has them, is not known."""
    word = getattr(getattr(model, "config", None), "model_type", None)
    if word not in KINDS:
        return False
    of_layer = OF_LAYER | (OF_HEADS if word in NORMS_HEADS else {})
    return (
        _consists_of(model, word, OF_MODEL)
        and getattr(model.config, "_attn_implementation", None) == "sdpa"
        and model.model.rotary_emb.rope_type in ROTARY
        and all(_consists_of(layer, word, of_layer) for layer in model.model.layers)
        and not _is_hooked(model)
    )


def _consists_of(module: nn.Module, word: str, parts: Mapping[str, str]) -> bool:
    """parts: by path, the ends of their classes' names. word: `model_type`."""
    home = import_module(f"transformers.models.{word}.modeling_{word}")
    try:
        return all(_is(module.get_submodule(path), getattr(home, KINDS[word] + end)) for path, end in parts.items())
    except AttributeError:  # it has no such part
        return False


def _is_hooked(model: nn.Module) -> bool:
    """Somebody looks at, or changes, what goes into modules or comes out of them."""
    found = (each for module in model.modules() for each in (module._forward_hooks, module._forward_pre_hooks))
    return any(
        not str(getattr(hook, "__module__", "")).startswith(KNOWN_HOOKS) for hooks in found for hook in hooks.values()
    )


def _is(module: nn.Module, kind: Any) -> bool:
    """Also one of a class that FSDP2 has made of it, and one that is computed again for its gradient."""
    given = next(each for each in type(module).__mro__ if not each.__module__.startswith("torch.distributed.fsdp"))
    own = vars(module).get("forward")
    forward = given.forward if own is None else getattr(getattr(own, "__wrapped__", None), "__func__", None)
    return forward is kind.forward


def _one_input(layer: Any) -> Iterator[tuple[Any, ...]]:
    """Its linear layers in their order, those that read one input together."""
    attention, mlp = layer.self_attn, layer.mlp
    yield attention.q_proj, attention.k_proj, attention.v_proj
    yield (attention.o_proj,)
    yield mlp.gate_proj, mlp.up_proj
    yield (mlp.down_proj,)


class _Norm:
    def __init__(self, norm: Any, weight: Tensor | None = None) -> None:
        self.weight, self.eps = (norm.weight if weight is None else weight).detach(), norm.variance_epsilon
        self.is_one = self.weight.dtype == torch.float32 and self.weight.dim() == 1

    def __call__(self, x: Tensor) -> Tensor:
        if self.is_one and x.dtype == torch.float32:
            return rms_norm(x, self.weight.shape, self.weight, self.eps)
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype)


class _Layer:
    def __init__(self, layer: Any, products: Products) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.before, self.after = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self.width, self.scaling, self.act = attention.head_dim, attention.scaling, mlp.act_fn
        self.queries, self.keys = (each.out_features // self.width for each in (attention.q_proj, attention.k_proj))
        self.of_heads = self._norm_of_heads(attention) if hasattr(attention, "q_norm") else None
        self.qkv, self.out, self.gate_up, self.down = (products.of(*layers) for layers in _one_input(layer))

    def _norm_of_heads(self, attention: Any) -> _Norm:
        """Of queries and keys side by side."""
        q, k = attention.q_norm, attention.k_norm
        weight = torch.cat([q.weight.expand(self.queries, -1), k.weight.expand(self.keys, -1)])
        return _Norm(q, weight)

    def __call__(self, hidden: Tensor, past: RoomyLayer, step: _Step) -> Tensor:
        """hidden [rows, H] of the newest tokens: the next layer's."""
        heads = self.qkv(self.before(hidden)).view(len(hidden), -1, self.width)
        turned = heads[:, : self.queries + self.keys]
        turned = step.turned(turned if self.of_heads is None else self.of_heads(turned))
        key, value = past.append(turned[:, self.queries :], heads[:, self.queries + self.keys :], step.column)
        seen = attend(turned[:, : self.queries, None], key, value, step.mask, self.scaling)
        hidden = self.out(seen.flatten(1)).add_(hidden)
        gate, up = self.gate_up(self.after(hidden)).chunk(2, -1)
        return self.down(self.act(gate).mul_(up)).add_(hidden)


class _Step:
    """What all layers need of a step. cos and sin [1 or rows, 1, D]; mask [rows, 1, 1, columns] float, or None."""

    def __init__(self, column: int, cos: Tensor, sin: Tensor, mask: Tensor | None) -> None:
        self.column, self.cos, self.sin, self.mask = column, cos, sin, mask

    def turned(self, heads: Tensor) -> Tensor:
        """heads [rows, heads, D] at their positions. sin has the sign of the half that it comes from."""
        return heads * self.cos + heads.roll(heads.shape[-1] // 2, -1) * self.sin


class PlainSteps:
    """Steps of the rows of `past`, whose layers all are written in place."""

    def __init__(self, past: Past, plain: Plain) -> None:
        self.past, self.plain = past, plain
        like = plain.embed.weight.new_empty(0)
        cos, sin = plain.rotary(like, torch.arange(past.capacity)[None])  # [1, capacity, D]
        below, above = sin[0].chunk(2, -1)
        self.cos, self.sin = cos[0], torch.cat([-below, above], -1)

    @property
    def trusted(self) -> bool:
        """Beside padding it is another computation: with a mask, and with positions of each row's own."""
        return self.plain.model in _trusted[self.past.padded]

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [rows] to the logits [rows, V] after them."""
        layers = self.past.layers
        assert layers is not None
        with one_thread(len(tokens)):
            hidden, step = self.plain.embed(tokens), self._step()
            for layer, cache in zip(self.plain.layers, layers, strict=True):
                hidden = layer(hidden, cache, step)
            return self.plain.head(self.plain.norm(hidden))

    def _step(self) -> _Step:
        past, end = self.past, self.past.end
        if not past.padded:
            return _Step(end, self.cos[end], self.sin[end], None)
        positions = (end - past.origins)[:, 0]
        hides = past.hides[:, None, None, past.first : end + 1]
        return _Step(end, self.cos[positions][:, None], self.sin[positions][:, None], hides)

    def compare(self, logits: Tensor, expected: Tensor) -> None:
        compare(logits, expected, SHARE.get(logits.dtype, SHARE_IN_16_BITS))
        _trusted[self.past.padded].add(self.plain.model)

    def refuse(self, error: Exception) -> None:
        """The steps of this model are the library's from now on."""
        _refused.add(self.plain.model)
        tell(self.past, "could not be computed without the library's modules", error)


def plain_steps(past: Past, plain: Plain | None) -> PlainSteps | None:
    """Where it is known how, with a cache that is written in place, of rows without images."""
    if plain is None or plain.model in _refused or past.layers is None or any(past.ahead):
        return None
    return PlainSteps(past, plain)
