"""vLLM with models that see, in its environment: it samples what Hugging Face and the trainer compute of the images."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from image_cases import VERSIONS, become
from test_engines import SAMPLED, check_fingerprints, checked, start
from vision_case import Case
from vision_models import save_tiny

from lightrft.rollouts.engines.base import Sampling
from lightrft.types import Generation

FAMILIES = ("qwen2_5_vl", "idefics3")
BOUND = 1e-4  # nats, of a log-probability in float32


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """family -> its case, and what vLLM gave; all families are run once, in one process."""
    folder = tmp_path_factory.mktemp("seeing")
    cases = {family: Case(save_tiny(family, folder / family, scale=4)) for family in FAMILIES}

    @cache
    def run() -> dict | str:
        out = folder / "found.json"
        said = start("vllm", [], "image_cases.py", folder, out, *FAMILIES, seconds=400)
        return said or json.loads(out.read_text())

    return lambda family: (cases[family], checked(run())[family])


@pytest.fixture(params=FAMILIES)
def seen(request, launched):
    return launched(request.param)


def gap(case: Case, groups: list, version: str = "a", temperature: float = 1.0) -> float:
    """Largest difference from the trainer's log-probabilities."""
    become(case.model, version)
    made = [[Generation(**{**row, "prompt_ids": tuple(row["prompt_ids"])}) for row in group] for group in groups]
    batch = case.batch(made, temperature)
    with torch.no_grad():
        return float((case.scored(batch) - batch.rollout_logprobs).abs().max())


def test_it_reads_prompts_as_the_trainer_does(seen):
    """Of one image, of two, of none, in one batch."""
    case, found = seen
    for request, group in zip(case.requests, found["greedy"], strict=True):
        assert all(tuple(row["prompt_ids"]) == request.prompt_ids for row in group)
    assert found["other ids"].startswith("RunFailed: data.jsonl:7: vLLM read ")
    length = len(case.requests[1].prompt_ids)
    assert f"read {length} tokens where the trainer has {length + 1}, other ones from token" in found["other ids"]


def test_greedy_tokens_are_hugging_faces(seen):
    case, found = seen
    become(case.model, "a")
    for number, group in enumerate(found["greedy"]):
        wanted = case.of_hugging_face(number, Sampling(24, 0.0))
        assert all(row["response_ids"] == wanted[: len(row["response_ids"])] for row in group)


@pytest.mark.parametrize("sampling", SAMPLED)
def test_log_probabilities_are_the_trainers(seen, sampling):
    case, found = seen
    assert gap(case, found[sampling], temperature=float(sampling.split()[1])) < BOUND


def test_images_are_seen_by_the_weights_of_the_last_sync(seen):
    """Weights a, another tower, others throughout, a again: nothing of an image stays from before."""
    case, found = seen
    for version in VERSIONS:
        assert gap(case, found[version], version.split()[0]) < BOUND, version
    assert found["a again"] == found["a"]
    assert gap(case, found["a"], "tower") > 0.05, "the tower makes a difference"


def test_every_tensor_arrives(seen):
    case, found = seen
    for version in VERSIONS:
        become(case.model, version.split()[0])
        check_fingerprints(found[f"prints {version}"], case.model)
