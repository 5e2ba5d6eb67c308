"""Engines with models that see: they sample what Hugging Face and the trainer compute of the images."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from engine_models import expected_fingerprints
from image_cases import VERSIONS, become, case_of, moving, save_other_processor
from test_engines import SAMPLED, check_same, checked, start
from vision_case import Case
from vision_models import save_tiny

from lightrft.models.fingerprint import MODULUS
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.vllm import MOVING
from lightrft.types import Generation

FAMILIES = {
    "vllm": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "idefics3"),
    "sglang": ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
}
SAYS = {"vllm": "vLLM", "sglang": "SGLang"}
BOUND = 1e-4  # nats, of a log-probability in float32


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """(kind, family) -> its case, and what that engine gave; all families are run once, in one process of each kind."""
    folder = tmp_path_factory.mktemp("seeing")
    for family in (*FAMILIES["vllm"], "gemma3"):
        save_tiny(family, folder / family, scale=4)
    save_other_processor(folder / "qwen2_vl")
    cases = {family: case_of(folder / family) for family in FAMILIES["vllm"]}

    @cache
    def run(kind: str) -> dict | str:
        out = folder / f"{kind}.json"
        said = start(kind, [], "image_cases.py", folder, out, *FAMILIES[kind], seconds=400)
        return said or json.loads(out.read_text())

    return lambda kind, family: (cases.get(family), checked(run(kind))[family])


@pytest.fixture(params=[(kind, family) for kind, families in FAMILIES.items() for family in families], ids="-".join)
def seen(request, launched):
    return launched(*request.param)


@pytest.fixture
def says(request) -> str:
    return SAYS[request.node.callspec.params["seen"][0]]


def generations(groups: list) -> list[list[Generation]]:
    return [[Generation(**{**row, "prompt_ids": tuple(row["prompt_ids"])}) for row in group] for group in groups]


def gap(case: Case, groups: list, version: str = "a", temperature: float = 1.0) -> float:
    """Largest difference from the trainer's log-probabilities."""
    become(case.model, version)
    batch = case.batch(generations(groups), temperature)
    with torch.no_grad():
        return float((case.scored(batch) - batch.rollout_logprobs).abs().max())


def test_it_reads_prompts_as_the_trainer_does(seen, says):
    """Of one image, of two, of none, in one batch."""
    case, found = seen
    for request, group in zip(case.requests, found["greedy"], strict=True):
        assert all(tuple(row["prompt_ids"]) == request.prompt_ids for row in group)
    assert found["other ids"].startswith(f"RunFailed: data.jsonl:7: {says} read ")
    length = len(case.requests[1].prompt_ids)
    assert f"read {length} tokens where the trainer has {length + 1}, other ones from token" in found["other ids"]


@pytest.mark.parametrize("family", MOVING)
def test_vllm_sees_the_frames_that_the_trainer_has_taken(launched, family):
    """Of a video alone, beside an image, and of one without a rate."""
    case, found = launched("vllm", family)
    case = moving(Path(case.model.config.name_or_path))
    assert all(row["prompt_ids"] == list(case.requests[n].prompt_ids) for n in range(3) for row in found["moving"][n])
    assert gap(case, found["moving"]) < BOUND


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
    check_same(found["a again"], found["a"])
    assert gap(case, found["a"], "tower") > 0.05, "the tower makes a difference"


def test_every_tensor_that_is_read_arrives(seen):
    """LLaVA reads the last layer but one of its tower: those behind it vLLM has not."""
    case, found = seen
    read = case.gradients(case.scored(case.batch(generations(found["a"])))).keys()
    for version in VERSIONS:
        become(case.model, version.split()[0])
        wanted, told = expected_fingerprints(case.model), found[f"prints {version}"]
        assert read <= {name for names, _ in told for name in names} <= wanted.keys()
        assert [sum(wanted[name] for name in names) % MODULUS for names, _ in told] == [value for _, value in told]


def test_a_model_whose_images_are_read_both_ways_is_refused_without_a_gpu(launched):
    assert launched("vllm", "fault qwen2_5_vl")[1] is None
    assert launched("vllm", "fault gemma3")[1] == (
        "without a GPU vLLM's tokens of an image do not see later ones, as those of gemma3 do"
    )


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory):
    """kind -> what each of two ranks got."""
    folder = tmp_path_factory.mktemp("seeing_ranks")
    save_tiny("qwen2_vl", folder / "qwen2_vl", scale=4)

    @cache
    def run(kind: str) -> list[dict] | str:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        failed = start(kind, torchrun, "image_ranks.py", folder, folder / kind, seconds=500)
        return failed or [json.loads(Path(f"{folder / kind}{rank}.json").read_text()) for rank in range(2)]

    return lambda kind: (case_of(folder / "qwen2_vl"), checked(run(kind)))


@pytest.mark.slow
@pytest.mark.parametrize("size", ("1", "2"))
@pytest.mark.parametrize("kind", FAMILIES)
def test_on_two_ranks_each_sees_its_own_images(kind, size, on_ranks):
    """One engine for each rank, or one for both, which has the same tensors in shards."""
    case, (first, second) = on_ranks(kind)
    for version in ("a", "tower"):
        made = [*first[size][version]["made"], *second[size][version]["made"]]
        assert [row["prompt_ids"] for group in made for row in group[:1]] == [list(r.prompt_ids) for r in case.requests]
        assert gap(case, made, version) < BOUND
        wanted = expected_fingerprints(case.model)
        for found in (first, second):
            for names, value in found[size][version]["prints"]:
                assert sum(wanted[name] for name in names) % MODULUS == value, names
