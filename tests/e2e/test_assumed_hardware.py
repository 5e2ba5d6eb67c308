"""`--assume_gpus`: checks and plans for other hardware, and writes nothing."""

from __future__ import annotations

import re

import pytest
from runs import BASE, train
from safetensors.torch import load_file


def parameters(here) -> int:
    return sum(tensor.numel() for tensor in load_file(here / "tiny" / "model.safetensors").values())


def test_a_plan_for_one_gpu(here):
    """0.4 M parameters: 2 + 2 + 4 + 12 bytes each, and 2 for the reference model."""
    ended = train("--save_path out --no-fsdp --assume_gpus 1x24GB")
    assert ended.code == 0, ended.err
    assert "device 1 x 24 GB GPU (assumed), precision bf16" in ended.out
    parts = re.search(
        r"take (\S+) GB \(weights (\S+), gradients (\S+), sums (\S+), optimizer (\S+), reference (\S+)\) of 24",
        ended.out,
    )
    assert parts is not None, ended.out
    total, *each = map(float, parts.groups())
    assert total == pytest.approx(sum(each), rel=1e-2)
    assert [value / each[0] for value in each] == pytest.approx([1, 1, 2, 6, 1], rel=1e-2)
    assert each[0] == pytest.approx(2 * parameters(here) / 1e9, rel=1e-2)
    assert not (here / "out").exists()


def test_what_cannot_fit_is_refused(here):
    ended = train("--save_path out --assume_gpus 1x0.002GB")
    assert ended.code == 2
    (line,) = ended.problems
    assert line.startswith("error: --assume_gpus 1x0.002GB: weights, gradients and optimizer take 0.00")
    assert line.endswith("use --zero_stage 3 --adam_offload")
    (under_fsdp,) = train("--save_path out --fsdp --assume_gpus 1x0.002GB").problems
    assert under_fsdp.endswith("use --no-fsdp --zero_stage 3 --adam_offload")
    (whole,) = train("--save_path out --fsdp --fsdp_reshard step --assume_gpus 2x0.005GB").problems
    assert "whole 0.00" in whole and whole.endswith("use --fsdp_reshard layer")
    (other,) = train("--save_path out --fsdp --fsdp_reshard step --assume_gpus 2x0.0015GB").problems
    assert other.endswith(" --fsdp_reshard layer") and "use --" in other
    (smaller,) = train("--save_path out --assume_gpus 1x0.0015GB").problems
    assert smaller.endswith("use --fsdp --fsdp_cpu_offload")
    offloaded = train("--save_path out --fsdp_cpu_offload --assume_gpus 1x0.002GB", f"{BASE} --fsdp")
    assert offloaded.code == 0, offloaded.err
    assert "use a smaller model or larger GPUs" in train("--save_path out --assume_gpus 1x0.0005GB").err
    assert not (here / "out").exists()


def test_what_is_frozen_is_planned_without_gradients_and_optimizer(here):
    """A critic that starts from the same model trains whole, and the plan says so."""
    frozen = "--save_path out --no-fsdp --assume_gpus 1x24GB --freeze_prefix model.layers model.norm --init_kl_coef 0"
    names = load_file(here / "tiny" / "model.safetensors").items()
    held = parameters(here)
    trained = sum(tensor.numel() for name, tensor in names if not name.startswith(("model.layers", "model.norm")))
    ended = train(frozen)
    assert ended.code == 0 and f"parameters that train: {trained:,} of {held:,} (language model)" in ended.out, (
        ended.err
    )
    assert parts_of(ended.out) == pytest.approx(
        {"weights": 2 * held, "gradients": 2 * trained, "sums": 4 * trained, "optimizer": 12 * trained}, rel=1e-2
    )
    both = train(f"{frozen} --advantage_estimator gae").out
    assert "value head score (new, starts at 0); all of it trains" in both and "all of it trains" not in ended.out
    assert parts_of(both)["sums"] == pytest.approx(4 * (trained + held), rel=1e-2)


def parts_of(out: str) -> dict[str, float]:
    """Bytes by what they are of."""
    found = re.search(r"take \S+ GB \((.*?)\) of 24 GB", out)
    assert found is not None, out
    return {name: float(value) * 1e9 for name, value in (part.split() for part in found[1].split(", "))}
