"""`--load_in_4bit` from the command line: resumed to the same bits, exported, planned, refused where it cannot be."""

from __future__ import annotations

import re
import sys

import pytest
import torch
from adapter_runs import LORA, check_resumed
from bitsandbytes import functional
from runs import rows, train
from transformers import AutoModelForCausalLM

from lightrft.models import quantised
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
    check_resumed(here, dequantised(here / "tiny"))
    first, *_, last = (row["kl/ref"] for row in rows(here / "whole"))
    assert first <= (1e-8 if "--bf16" in strategy else 0) and last > 1e-6  # in 16 bits batches round apart


@pytest.mark.parametrize(
    "changed, line",
    [
        ("", "--bits 16: the checkpoint .* was made with 4"),
        ("--bits 4 --quant_type fp4", "--quant_type fp4: the checkpoint .* was made with nf4"),
        ("--bits 4 --no-double_quant", "--double_quant False: the checkpoint .* was made with True"),
    ],
)
def test_a_checkpoint_beside_other_weights_is_refused(here, monkeypatch, changed, line):
    """Before any data are read."""
    assert train(f"{QLORA} --fsdp --max_steps 1 --save_steps 1 --save_path run").code == 0
    monkeypatch.setattr("lightrft.preflight.load_prompts", lambda *_, **__: pytest.fail("data were read"))
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


@pytest.mark.parametrize("flag", ["--load_in_4bit", "--bits 4"])
@pytest.mark.parametrize(
    "fault, line",
    [
        ("import", r"bitsandbytes cannot be imported \(.*\): `pip install 'bitsandbytes>=0.50'`"),
        ("kernels", r"bitsandbytes has no kernels for cpu here \(.*it is not there\); train without, or on a GPU"),
    ],
)
def test_without_what_bitsandbytes_brings(here, monkeypatch, flag, fault, line):
    """Before anything is read or written, by the flag that was typed; not where another machine is meant."""

    def none(*_, **__):
        raise NotImplementedError("it is not there")

    quantised.library.cache_clear()
    if fault == "import":
        monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    else:
        monkeypatch.setattr("bitsandbytes.matmul_4bit", none)
    ended = train(f"{LORA} --fsdp --save_path run {flag} --no-quiet")
    assert ended.code == 2 and not (here / "run").exists() and "model tiny" not in ended.out
    assert re.fullmatch(f"error: {flag}: {line}", ended.problems[0]), ended.err
    assert train(f"{LORA} --fsdp --save_path run {flag} --assume_gpus 1x24GB").code == 0


@pytest.mark.parametrize("flag", ["--lora_rank 4", "--lora_path given"])
def test_without_peft(here, monkeypatch, flag):
    monkeypatch.setitem(sys.modules, "peft", None)
    ended = train(f"{flag} --fsdp --save_path run")
    assert ended.code == 2 and not (here / "run").exists()
    line = rf"error: {flag}: peft cannot be imported \(.*\): `pip install 'peft>=0.19'`"
    assert re.fullmatch(line, ended.problems[0]), ended.err
