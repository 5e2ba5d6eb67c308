"""How many floating-point operations a model's training pass takes: what a share of the device's peak is counted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightrft.models.adapters import computed_with
from lightrft.models.quantised import numbers_in_4_bits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The chips' dense peaks in bf16, as their makers tell them, by a part of the name that CUDA gives.
PEAKS = {"H200": 989e12, "H100": 989e12, "H20": 148e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12, "A10": 125e12}


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")  # in configurations


@dataclass(frozen=True)
class Work:
    """Of a forward and a backward pass, by what they are proportional to: positions, pairs of positions that attention
    looks at, and tokens whose logits are computed.

    A product with weights takes 2 operations a weight forward, 2 for the gradient of its input, and 2 for that of its
    weights where they train. What is computed twice (`--gradient_checkpointing`) counts once, and so does nothing that
    a layout adds, such as padding: a share of the peak made of this is of what had to be done.
    """

    per_token: float
    per_pair: float
    per_output: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> Work | None:
        """Before a strategy shards it. What sees images is not counted. None of a model with experts, of which a token
        meets a few, and of one whose configuration tells its size in another way."""
        config: Any = model.config.get_text_config()
        try:
            return None if any(getattr(config, name, None) for name in EXPERTS) else cls._of(model, config)
        except AttributeError:
            return None

    @classmethod
    def _of(cls, model: PreTrainedModel, config: Any) -> Work:
        head: Any = model.get_output_embeddings()
        embeddings = (model.get_input_embeddings(), head)
        ends = {id(p) for end in embeddings for p in end.parameters()}
        own = computed_with(model.get_decoder()).values()
        body = [p for p in own if p.dim() > 1 and id(p) not in ends]
        heads = getattr(config, "num_attention_heads", 0)  # some layers have no attention
        width = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
        pairs = 12.0 * config.num_hidden_layers * heads * width  # scores and values forward, both twice backward
        in_4_bits = 4 * numbers_in_4_bits(model.get_decoder())  # and they never train
        return cls(_products(body) + in_4_bits, pairs, _products(list(head.parameters())))

    def of_rows(self, lengths: np.ndarray, trained: np.ndarray) -> float:
        """lengths: of rows, each of which sees itself alone and backwards; trained: tokens of each that are learned."""
        lengths = lengths.astype(np.float64)
        pairs = float((lengths * (lengths + 1) / 2).sum())
        return self.per_token * float(lengths.sum()) + self.per_pair * pairs + self.per_output * float(trained.sum())


def _products(weights: list[Any]) -> float:
    return float(sum((6 if weight.requires_grad else 4) * weight.numel() for weight in weights))


def device_peak() -> float | None:
    """FLOP per second in bf16 of this process's GPU, or None where that is not known."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for part, peak in PEAKS.items() if part in name), None)
