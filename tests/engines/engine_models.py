"""The models of the engines' contract, and an engine of each kind as the program itself makes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightrft.args import Args, parse
from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines.base import InferenceEngine
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.offers import OFFERS
from lightrft.sync.weights import named

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
from tiny_addition import make_model, make_tokenizer  # noqa: E402

LAYOUTS = ("tied", "untied")
VERSIONS = ("a", "b")  # two sets of weights of one architecture
MAX_LEN, END = 200, 2
BATCHES = "--rollout_batch_size 4 --n_samples_per_prompt 4 --train_batch_size 16"


def write_models(folder: Path) -> None:
    """For each layout a folder with configuration and tokenizer, as --pretrain, and beside it weights of two versions:
    an engine that reads weights from there finds none."""
    for layout in LAYOUTS:
        config = make_model(0).config
        config.tie_word_embeddings, config.num_key_value_heads = layout == "tied", 2
        config.max_position_embeddings = MAX_LEN  # an engine that needs some to spare has none
        config.dtype, config.architectures = torch.float32, ["Qwen2ForCausalLM"]
        for seed, version in enumerate(VERSIONS):
            model = _random_model(config, seed)
            save_file(dict(model.named_parameters()), folder / f"{layout}_{version}.safetensors")
        config.save_pretrained(folder / layout)
        make_tokenizer().save_pretrained(folder / layout)


def _random_model(config: Any, seed: int) -> Any:
    """Weights so large that its distributions are neither flat nor certain, and no two tensors are alike."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for value in model.parameters():
        value.data = torch.randn_like(value) * (0.1 if value.ndim > 1 else 0.02) + (0.0 if value.ndim > 1 else value)
    return model


def load_version(folder: Path, layout: str, version: str) -> Any:
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / layout), dtype=torch.float32)
    model.load_state_dict(load_file(folder / f"{layout}_{version}.safetensors"), strict=False)
    model.tie_weights()
    return model.requires_grad_(False).eval()


def streamed(model: Any) -> Iterator[tuple[str, Tensor]]:
    """As `WeightSync.push` does it."""
    return named(model, model.named_parameters(), torch.float32)


def expected_fingerprints(model: Any) -> dict[str, int]:
    return {name: fingerprint(value) for name, value in streamed(model)}


def read_args(kind: str, folder: Path, layout: str, more: str = "") -> Args:
    flags = f"--pretrain {folder / layout} --prompt_data none.jsonl --reward_fn exact --save_path none {BATCHES}"
    return parse(
        f"{flags} --max_len {MAX_LEN} --prompt_max_len 160 --replay_sampling_mask --engine_type {kind} {more}".split()
    )


def make_engine(kind: str, folder: Path, layout: str, world: Any, more: str = "") -> tuple[InferenceEngine, Any]:
    """And the model that the local engine samples from; weights reach it by `give`."""
    args = read_args(kind, folder, layout, more)
    tokenizer = AutoTokenizer.from_pretrained(folder / layout)
    if kind != "local":
        made = OFFERS[kind].module.make(args.model, args.engine, tokenizer, {END}, torch.float32, world)
        return made, None
    model = load_version(folder, layout, "a")
    return LocalEngine(lambda: nullcontext(model), tokenizer, {END}), model


def give(engine: InferenceEngine, own: Any, model: Any, version: int) -> None:
    """What the trainer's weights are from here on."""
    if engine.shares_weights:
        own.load_state_dict(model.state_dict())
        engine.update_weights((), version)
    else:
        engine.update_weights(streamed(model), version)
