"""`--load_in_4bit` from the command line: resumed to the same bits, exported, planned, refused where it cannot be."""

from __future__ import annotations

import re

import pytest
import torch
from bitsandbytes import functional
from peft import PeftModel
from runs import rows, train
from safetensors.torch import load_file
from test_lora_runs import LORA, adapter, logits
from transformers import AutoModelForCausalLM

from lightrft.sync import weights

QLORA = f"{LORA} --load_in_4bit"


def dequantised(folder):
    """The model, float32, of what 4 bits leave of its layers' weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, weight in model.named_parameters():
        if name.endswith("_proj.weight"):
            weight.data = functional.dequantize_4bit(
                *functional.quantize_4bit(weight.data, quant_type="nf4", compress_statistics=True)
            )
    return model


@pytest.mark.parametrize("strategy", ("--fsdp", "--zero_stage 3 --bf16"))
def test_a_resumed_run_exports_the_same_adapter_of_the_rounded_model(here, strategy):
    """To the bit, and under a KL to that model, which is 0 at the start."""
    flags = f"{QLORA} {strategy} --init_kl_coef 0.1"
    assert train(f"{flags} --max_steps 3 --save_path whole --lora_merge").code == 0
    assert train(f"{flags} --max_steps 2 --save_steps 1 --save_path cut").code == 0
    assert train(f"{flags} --max_steps 3 --load_checkpoint --save_path cut").code == 0
    assert rows(here / "whole")[-1] == rows(here / "cut")[-1] and adapter(here / "whole") == adapter(here / "cut")
    first, *_, last = (row["kl/ref"] for row in rows(here / "whole"))
    assert first <= (1e-8 if "--bf16" in strategy else 0) and last > 1e-6  # in 16 bits batches round apart
    state = load_file(here / "cut/checkpoints/step_000002/policy/rank_00000.safetensors")
    assert state and all(".lora_" in name for name in state)
    base, merged = dequantised(here / "tiny"), AutoModelForCausalLM.from_pretrained(here / "whole/merged")
    start = logits(base)
    opened = logits(PeftModel.from_pretrained(base, here / "whole"))
    assert torch.allclose(opened, logits(merged), atol=1e-5) and not torch.allclose(opened, start, atol=1e-2)


@pytest.mark.parametrize(
    "changed, line",
    [
        ("", "--bits 16: the checkpoint .* was made with 4"),
        ("--bits 4 --quant_type fp4", "--quant_type fp4: the checkpoint .* was made with nf4"),
        ("--bits 4 --no-double_quant", "--double_quant False: the checkpoint .* was made with True"),
    ],
)
def test_a_checkpoint_beside_other_weights_is_refused(here, changed, line):
    assert train(f"{QLORA} --fsdp --max_steps 1 --save_steps 1 --save_path run").code == 0
    ended = train(f"{LORA} {changed} --fsdp --max_steps 2 --load_checkpoint --save_path run")
    assert ended.code == 2 and re.search(line, ended.err), ended.err


def test_an_engine_with_weights_of_its_own_gets_the_rounded_ones(here, monkeypatch):
    """With the adapters merged in, which change nothing before the first step."""
    sent, real = {}, weights.send

    def spy(params, engine, version):
        kept = dict(params)
        sent.setdefault(version, kept)
        real(iter(kept.items()), engine, version)

    monkeypatch.setattr(weights, "send", spy)
    ended = train(f"{QLORA} --fsdp --max_steps 1 --engine_type local --engine_dtype bf16 --save_path run")
    assert ended.code == 0, ended.err
    wanted = dequantised(here / "tiny").state_dict()
    assert sent[0].keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name].bfloat16()) for name, value in sent[0].items())


def test_the_plan_counts_them_whole_on_each_process(here):
    """0.52 bytes each; what is left and the adapters are sharded."""
    sizes = "--lora_rank 4 --micro_train_batch_size 4 --zero_stage 3"
    ended = train(f"--save_path out --load_in_4bit {sizes} --assume_gpus 4x24GB")
    assert ended.code == 0, ended.err
    told = re.search(r"weights in 4 bits \(nf4\): ([\d,]+) of ([\d,]+) in ([\d,]+) bytes", ended.out)
    numbers, whole, size = (int(number.replace(",", "")) for number in told.groups())
    assert 0.515 < size / numbers < 0.52
    found = re.search(r"take \S+ GB \((.*?)\) of 24 GB", ended.out)
    parts = {name: 1e9 * float(value) for name, value in re.findall(r"([a-z0-9 ]+?) ([\d.e-]+)(?:, |$)", found[1])}
    adapters = int(re.search(r"train: ([\d,]+) of", ended.out)[1].replace(",", ""))
    assert parts["in 4 bits"] == pytest.approx(size, rel=1e-2)
    assert parts["weights"] == pytest.approx(2 * (whole - numbers + adapters) / 4, rel=1e-2)
    assert parts["optimizer"] == pytest.approx(12 * adapters / 4, rel=1e-2)


def test_without_bitsandbytes(here, monkeypatch):
    """Before anything is read or written; not where another machine is meant."""
    real = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("lightrft.preflight.find_spec", lambda name: None if name == "bitsandbytes" else real(name))
    ended = train(f"{QLORA} --fsdp --save_path run")
    assert ended.code == 2 and not (here / "run").exists()
    assert (
        "--load_in_4bit: bitsandbytes cannot be imported (it is not there): `pip install 'bitsandbytes>=0.50'`"
        in (ended.problems[0])
    )
    assert train(f"{QLORA} --fsdp --save_path run --assume_gpus 1x24GB").code == 0
