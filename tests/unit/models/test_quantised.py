"""Weights in 4 bits: as `transformers` and bitsandbytes make them, in so many bytes, and out of a strategy's reach."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes import functional
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models import quantised
from lightrft.models.adapters import adapters_of
from lightrft.models.flops import Work
from lightrft.models.given import Given
from lightrft.models.load import count_adapters, count_in_4_bits, count_parameters, load_model
from lightrft.models.packing import Cost
from lightrft.models.quantised import FourBitLinear, layers_in_4_bits, library
from lightrft.strategy.base import named_tensors

IDS = torch.arange(4, 15)[None]
CPU = torch.device("cpu")
KINDS = [("nf4", True), ("nf4", False), ("fp4", True)]
each_kind = pytest.mark.parametrize(("quant_type", "double_quant"), KINDS)


@pytest.fixture
def model(tiny_folder):
    """(changes of the flags) -> the tiny model as a run loads it, its adapters doing something."""

    def load(dtype: torch.dtype = torch.float32, **changes):
        args = ModelArgs(pretrain=str(tiny_folder / "model"), **{"lora_rank": 4, "bits": 4, **changes})
        return filled(load_model(args, dtype, CPU, trains=True))

    return load


def filled(model):
    draw = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data = torch.randn(parameter.shape, generator=draw) * 0.1
    return model


def of_the_library(folder, quant_type: str, double_quant: bool):
    """In training mode: in the other one its layers are laid out for another product on some processors."""
    how = {"bnb_4bit_quant_type": quant_type, "bnb_4bit_use_double_quant": double_quant}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **how)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32).train()


def dequantised(weight, quant_type: str, double_quant: bool):
    made = functional.quantize_4bit(weight, quant_type=quant_type, compress_statistics=double_quant)
    return functional.dequantize_4bit(*made)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@each_kind
def test_the_exported_adapter_opens_on_the_librarys_model_in_4_bits(
    model, tiny_folder, tmp_path, quant_type, double_quant
):
    """And gives the same logits; so does that model alone and ours as it began."""
    ours = model(quant_type=quant_type, double_quant=double_quant)
    adapters, base = adapters_of(ours), of_the_library(tiny_folder / "model", quant_type, double_quant)
    adapters.save(((n, v) for n, v in named_tensors(ours) if n in adapters.names), Given(), tmp_path)
    with adapters.at_the_start():
        begun = logits(ours)
    assert torch.allclose(begun, logits(base), atol=1e-6)
    opened = PeftModel.from_pretrained(base, tmp_path).train()
    assert torch.allclose(logits(opened), logits(ours), atol=1e-6)
    assert not torch.allclose(logits(ours), begun, atol=1e-2)


@each_kind
def test_merged_weights_are_the_dequantised_ones_and_the_adapters_change(model, quant_type, double_quant):
    """Under the names of the model without adapters, also of layers that have none."""
    given = {"quant_type": quant_type, "double_quant": double_quant}
    ours, whole = (model(target_modules=("q_proj", "down_proj"), bits=bits, **given) for bits in (4, 16))
    merged, exact = (dict(adapters_of(each).merged(named_tensors(each))) for each in (ours, whole))
    plain = model(lora_rank=0, bits=16)
    assert merged.keys() == exact.keys() == dict(plain.named_parameters()).keys()
    for name, weight in plain.named_parameters():
        change = exact[name] - weight
        is_linear = name.endswith("_proj.weight")
        base = dequantised(weight.detach(), quant_type, double_quant) if is_linear else weight
        assert torch.allclose(merged[name], base + change, atol=1e-6), name
    plain.load_state_dict(merged, strict=False)
    assert torch.allclose(logits(plain), logits(ours), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_dequantised_weights(model, dtype):
    """Of what flows into a layer too."""
    ours = model()
    name, layer = next((n, m) for n, m in layers_in_4_bits(ours).items() if n.endswith("q_proj.base_layer"))
    plain = nn.Linear(layer.in_features, layer.out_features, dtype=dtype)
    plain.weight.data, plain.bias = layer.weight.to(dtype), nn.Parameter(layer.bias.detach().to(dtype))
    inputs = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0)).to(dtype)
    seen = []
    for each in (layer.to(dtype), plain):
        x = inputs.clone().requires_grad_()
        out = each(x)
        out.square().sum().backward()
        seen.append((out, x.grad))
    for mine, exact in zip(*seen, strict=True):
        assert mine.dtype == dtype and torch.allclose(mine, exact, rtol=1e-5, atol=1e-5 if dtype.itemsize > 2 else 0.1)
    assert layer.state.state2.absmax.dtype == torch.float32, "scales are not rounded with the model"


@each_kind
def test_bytes_are_as_counted(model, tiny_folder, quant_type, double_quant):
    """4.5 bits a weight, or 4.13 and a table of 1,024 bytes a layer; each layer has one of 64 bytes too."""
    args = ModelArgs(
        pretrain=str(tiny_folder / "model"), lora_rank=4, bits=4, quant_type=quant_type, double_quant=double_quant
    )
    layers = layers_in_4_bits(model(quant_type=quant_type, double_quant=double_quant)).values()
    numbers, size = count_in_4_bits(args)
    assert len(layers) == 14 and numbers == sum(layer.out_features * layer.in_features for layer in layers)
    assert sum(held(layer) for layer in layers) == size + 14 * (64 + (1024 + 4) * double_quant)
    assert size / numbers * 8 == pytest.approx(4 + 8 / 64 + 32 / 64 / 256 if double_quant else 4.5, abs=2e-3)


def held(layer: FourBitLinear) -> int:
    scales, second = layer.state, layer.state.state2
    tensors = [layer.packed, scales.absmax, scales.code]
    tensors += [second.absmax, second.code, scales.offset] if second else []
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_they_are_no_parameters_and_count_as_work(model, tiny_folder):
    ours, whole = model(), model(bits=16)
    args = ModelArgs(pretrain=str(tiny_folder / "model"), lora_rank=4, bits=4)
    left = sum(p.numel() for p in ours.parameters())
    assert left == count_parameters(args) + count_adapters(args) - count_in_4_bits(args)[0]
    assert all(p.dtype == torch.float32 for p in ours.parameters())
    assert not any("packed" in name for name, _ in named_tensors(ours))
    assert Work.of(ours) == Work.of(whole) and Cost.of(ours) == Cost.of(whole)


def test_neither_head_nor_adapters_are_in_4_bits(model):
    ours = model()
    kinds = {name: type(module) for name, module in ours.named_modules()}
    assert not any(kind is FourBitLinear for name, kind in kinds.items() if ".lora_" in name or "head" in name)
    assert all(kind is FourBitLinear for name, kind in kinds.items() if name.endswith(".base_layer"))


def test_a_reference_of_its_own_and_an_engine_have_whole_weights(tiny_folder):
    args = ModelArgs(pretrain=str(tiny_folder / "model"), lora_rank=4, bits=4)
    assert not layers_in_4_bits(load_model(args, torch.float32, CPU, trains=False))


def test_a_model_without_linear_layers_is_refused(causal_model):
    for flags, named in (({"bits": 4}, "--bits 4"), ({"load_in_4bit": True, "bits": 4}, "--load_in_4bit")):
        with pytest.raises(Refused, match=f"{named}: GPT2LMHeadModel keeps no weights in linear layers; remove it"):
            quantised.layers_to_quantise(causal_model("gpt2"), ModelArgs(pretrain="none", lora_rank=4, **flags))


def test_a_weight_is_rounded_alike_on_any_number_of_threads():
    """A run may go on with other threads; the mean of the scales, which is taken off, would round apart."""
    args = ModelArgs(pretrain="none", lora_rank=4, bits=4, double_quant=True)
    made = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        model = OneLayer()
        quantised.quantise(model, args, CPU)
        made.append(model.layer.weight)
        assert torch.get_num_threads() == threads
    assert torch.equal(*made)


class OneLayer(nn.Module):
    """A large one that does not train."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.layer = nn.Linear(4096, 1024, bias=False, device="meta")
        self.layer.weight = nn.Parameter(torch.randn(1024, 4096, generator=draw), requires_grad=False)

    def get_output_embeddings(self) -> None:
        return None


def test_on_a_gpu_a_user_is_not_sent_to_a_gpu(monkeypatch):
    """Where bitsandbytes was built for another one, or torch for none."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(quantised, "_quantised", none_of(RuntimeError("no kernel image is available")))
    line = r"--bits 4: bitsandbytes has no kernels for the GPU here \(.+\); install a bitsandbytes that is built for it"
    with pytest.raises(Refused, match=f"^{line}, or train without$"):
        quantised.check_library(ModelArgs(pretrain="", bits=4, lora_rank=4))


def test_a_gpu_that_others_fill_is_no_fault_of_bitsandbytes(monkeypatch):
    monkeypatch.setattr(library(), "matmul_4bit", none_of(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        quantised.check_library(ModelArgs(pretrain="", bits=4, lora_rank=4))


def none_of(error: Exception):
    def fails(*_, **__):
        raise error

    return fails
