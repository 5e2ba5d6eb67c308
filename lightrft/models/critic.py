"""A value model: the backbone of a language model and a scalar head, in the names of a Hugging Face classifier."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import TokenClassifierOutput

from lightrft.errors import Refused
from lightrft.models.given import Given, read_given, weight_files
from lightrft.models.load import attention_kernel, described_backbone, load_backbone
from lightrft.models.source import CRITIC, check_place
from lightrft.models.suitable import check_model, read_config, vocabulary
from lightrft.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs


OF_A_POLICY = ("config.json", "generation_config.json")


class ValueHead(nn.Linear):
    """One number a position, computed in float32 whatever its weight is held in."""

    def forward(self, hidden: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.linear(hidden.float(), self.weight.float(), bias)


class ValueModel(nn.Module):
    """Parameters are `<backbone's prefix>.*` and `<value_head_prefix>.weight`, as in `...ForTokenClassification`."""

    def __init__(self, backbone: PreTrainedModel, head: ValueHead, name: str) -> None:
        super().__init__()
        self.config, self._no_split_modules = backbone.config, backbone._no_split_modules
        self._backbone_name, self._head_name = backbone.base_model_prefix or "model", name
        self.add_module(self._backbone_name, backbone)
        if hasattr(self, name):
            raise Refused(f"--value_head_prefix {name} is the name of another part of the critic; use another name")
        self.add_module(name, head)

    @property
    def backbone(self) -> PreTrainedModel:
        return getattr(self, self._backbone_name)

    def get_output_embeddings(self) -> ValueHead:
        """The head, under the name by which language models hand out theirs."""
        return getattr(self, self._head_name)

    def forward(self, **inputs: Any) -> TokenClassifierOutput:
        """`logits` are the values, [B, T, 1]."""
        hidden = self.backbone(**inputs).last_hidden_state
        return TokenClassifierOutput(logits=self.get_output_embeddings()(hidden))

    @property
    def base_model_prefix(self) -> str:
        return self._backbone_name

    def save_pretrained(self, folder: Path, state_dict: dict[str, Tensor]) -> None:
        self.backbone.save_pretrained(folder, state_dict=state_dict)


def critic_args(args: ModelArgs) -> ModelArgs:
    """`args` with the critic's model in the place of the policy's."""
    return replace(args, pretrain=args.critic_pretrain or args.pretrain)


def critic_name(args: ModelArgs) -> str:
    """The flag that says where it starts, with its value."""
    own = args.critic_pretrain
    return f"the critic of --pretrain {args.pretrain}" if own is None else f"--critic_pretrain {own}"


def check_critic(args: ModelArgs, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a critic that does not read the policy's tokens, or not so many of them."""
    if args.critic_pretrain is None:
        return
    own = critic_args(args)
    check_place(own, CRITIC)
    with _named_critic():
        tokens = load_tokenizer(own).get_vocab()
        check_model(own, backbone=True)
        rows = vocabulary(read_config(own))
    if tokens != tokenizer.get_vocab():
        raise Refused(
            f"--critic_pretrain {args.critic_pretrain}: its tokenizer is not that of --pretrain {args.pretrain}; "
            "give a model with the same one"
        )
    if rows < len(tokens):
        raise Refused(f"--critic_pretrain {args.critic_pretrain}: it has {rows} tokens, its tokenizer {len(tokens)}")


def described_critic(args: ModelArgs, *, with_attention: bool = False) -> PreTrainedModel:
    """The critic without its head and without weights, as `described_model` is: its type may have no language model."""
    with _named_critic():
        return described_backbone(critic_args(args), with_attention=with_attention)


def critics_kernel(args: ModelArgs) -> str:
    """Of the critic's attention, by name; it need not be installed here."""
    with _named_critic():
        return attention_kernel(critic_args(args), described_backbone)


def count_critic(args: ModelArgs) -> int:
    """Of the critic's parameters, its head among them."""
    model = described_critic(args)
    head = model.config.get_text_config().hidden_size + ("bias" in saved_head(args))
    return sum(parameter.numel() for parameter in model.parameters()) + head


def given_critic(args: ModelArgs) -> Given:
    """Its configuration is the value model's own: it says that there is one number a position."""
    given = read_given(critic_args(args))
    return replace(given, files={name: content for name, content in given.files.items() if name not in OF_A_POLICY})


@contextmanager
def _named_critic() -> Iterator[None]:
    """What is said of --pretrain is said of the critic's."""
    try:
        yield
    except Refused as refused:
        raise Refused(str(refused).replace("--pretrain", "--critic_pretrain", 1)) from refused


def load_critic(args: ModelArgs, dtype: torch.dtype, device: torch.device, *, empty: bool = False) -> ValueModel:
    """The backbone of `--critic_pretrain` (or `--pretrain`) with the head that stands in its weights, else a new one;
    all of it trains, whatever flags freeze of the policy.

    A new head is 0, so that the first values are 0 and the first advantages those of the bare returns.
    empty: the backbone's parameters take no memory, as in `load_model`.
    """
    own = critic_args(args)
    with _named_critic():
        backbone = load_backbone(own, dtype, empty=empty)
    backbone.config.num_labels = 1  # so that classes for tokens and sequences open what is exported
    saved, width = saved_head(args), backbone.config.get_text_config().hidden_size
    head = ValueHead(width, 1, bias="bias" in saved, dtype=dtype)
    nn.init.zeros_(head.weight)
    with torch.no_grad():
        for name, value in saved.items():
            _fill(getattr(head, name), value, f"{args.value_head_prefix}.{name} of {own.pretrain}")
    model = ValueModel(backbone, head, args.value_head_prefix)
    return (model if empty else model.to(device)).eval().requires_grad_(True)


def _fill(parameter: Tensor, value: Tensor, what: str) -> None:
    if parameter.shape != value.shape:
        shapes = (" x ".join(map(str, tensor.shape)) for tensor in (value, parameter))
        raise Refused("--value_head_prefix: {} is {}, a critic's is {}; use another name".format(what, *shapes))
    parameter.copy_(value)


def saved_head(args: ModelArgs) -> dict[str, Tensor]:
    """weight, and bias where there is one, under `--value_head_prefix` in the critic's model; {} without."""
    names = {f"{args.value_head_prefix}.{part}": part for part in ("weight", "bias")}
    found = {names[name]: value for name, value in _tensors(critic_args(args), names)}
    return found if "weight" in found else {}


def _tensors(args: ModelArgs, names: Container[str]) -> Iterator[tuple[str, Tensor]]:
    """Those of `names` that the model's safetensors hold, in one file or several."""
    from safetensors import safe_open

    for path in weight_files(args):
        with safe_open(path, "pt") as weights:
            yield from ((name, weights.get_tensor(name)) for name in weights.keys() if name in names)  # noqa: SIM118
