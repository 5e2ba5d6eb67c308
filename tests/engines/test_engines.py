"""One contract for all engines. Each kind runs its cases in an environment of its own (environment.sh); what comes out
is compared here with Hugging Face's forward pass and with what the trainer would compute."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from children import environment
from engine_models import END, LAYOUTS, expected_fingerprints, load_version, write_models

ROOT, HERE = Path(__file__).parents[2], Path(__file__).parent
KINDS = ("local", "vllm", "sglang")
SAMPLED = [f"temperature {t} top_p {p}" for t in (1.0, 0.6) for p in (1.0, 0.9)]
BOUND = 1e-4  # nats, of a log-probability in float32


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def launched(models, tmp_path_factory):
    """kind -> what its cases gave; each kind is run once."""

    @cache
    def run(kind: str) -> dict | str:
        out = tmp_path_factory.mktemp(kind) / "found.json"
        return start(kind, [], "engine_cases.py", models, out, seconds=300) or json.loads(out.read_text())

    return lambda kind: checked(run(kind))


def start(kind: str, launcher: list[str], script: str, models: Path, out: Path, *more: str, seconds: int) -> str:
    """What it said where it failed: no second test starts it again."""
    command = [python_of(kind), *launcher, HERE / script, kind, models, out, *more]
    done = subprocess.run(
        ["timeout", "-k", "10", str(seconds), *map(str, command)],
        cwd=ROOT,
        env=environment(PYTHONPATH=f"{ROOT}:{HERE.parent}:{HERE}", OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr)[-6000:] if done.returncode else ""


def checked(found):
    assert not isinstance(found, str), found
    return found


def python_of(kind: str) -> str:
    if kind == "local":
        return sys.executable
    place = ROOT / f".venv-{kind}"
    if not (place / "lightrft-installed").is_file():
        pytest.skip(f"bash tests/engines/environment.sh {kind}  makes its environment")
    return str(place / "bin/python")


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(params=LAYOUTS)
def layout(request) -> str:
    return request.param


@pytest.fixture
def found(launched, kind, layout) -> dict:
    return launched(kind)[layout]


@pytest.fixture
def forward(models, layout):
    """(generation, version, temperature) -> the trainer's log-probabilities of all tokens, [response tokens, V]."""
    cached = cache(lambda version: load_version(models, layout, version))

    def run(made: dict, version: str = "a", temperature: float = 1.0):
        ids = torch.tensor([[*made["prompt_ids"], *made["response_ids"]]])
        logits = cached(version)(ids).logits[0, len(made["prompt_ids"]) - 1 : -1]
        return (logits / temperature).log_softmax(-1)

    return run


def rows(groups) -> list[dict]:
    return [row for group in groups for row in group]


def gap(made: dict, logp) -> float:
    wanted = logp.gather(1, torch.tensor(made["response_ids"])[:, None])[:, 0]
    return float((wanted - torch.tensor(made["logprobs"])).abs().max())


def test_greedy_tokens_are_those_of_the_forward_pass(found, forward):
    for made in rows(found["greedy"]):
        logp = forward(made)
        assert logp.argmax(-1).tolist() == made["response_ids"]
        assert gap(made, logp) < BOUND  # at temperature 0 of the unscaled distribution


@pytest.mark.parametrize("case", SAMPLED)
def test_log_probabilities_are_the_trainers(case, found, forward):
    temperature = float(case.split()[1])
    assert max(gap(made, forward(made, "a", temperature)) for made in rows(found[case])) < BOUND


def test_filters_keep_what_they_say(found, forward):
    """top_p 0.9: the sampled token is in the smallest set of likeliest ones that reach it; top_k and min_p alike."""
    for case in SAMPLED[1::2]:
        for made in rows(found[case]):
            kept = forward(made, "a", float(case.split()[1])).exp()
            more_likely = (kept * (kept > kept.gather(1, torch.tensor(made["response_ids"])[:, None]))).sum(-1)
            assert float(more_likely.max()) < 0.9 + 1e-5
    for made in rows(found["top_k 3 min_p 0.2"]):
        p, picked = forward(made).exp(), torch.tensor(made["response_ids"])[:, None]
        assert bool(((p > p.gather(1, picked)).sum(-1) < 3).all())
        assert bool((p.gather(1, picked)[:, 0] >= 0.2 * p.amax(-1) - 1e-6).all())


@pytest.mark.parametrize(("case", "temperature"), [("masked top_p 0.9", 0.6), ("masked hot top_p 0.7", 0.8)])
def test_masks_are_what_the_filters_left_and_log_probabilities_are_of_these(case, temperature, kind, found, forward):
    """A hot first token has none. vLLM is not asked for masks."""
    assert (case in found) == (kind != "vllm")
    for made in rows(found.get(case, [])):
        logp, sizes = forward(made, "a", temperature), made["sampling_mask"]["sizes"]
        sets = torch.tensor(made["sampling_mask"]["ids"], dtype=torch.long).split(sizes)
        assert len(sets) == len(made["response_ids"])
        for place, kept in enumerate(sets):
            hot = place == 0 and "hot" in case
            order = logp[place].exp().sort(descending=True)
            reaching = int((order.values.cumsum(0) < float(case.split()[-1])).sum()) + 1
            assert kept.tolist() == ([] if hot else sorted(order.indices[:reaching].tolist()))
            inside = logp[place] if hot else logp[place] - logp[place, kept].logsumexp(0)
            assert made["logprobs"][place] == pytest.approx(float(inside[made["response_ids"][place]]), abs=BOUND)


def test_every_sample_has_its_own_seed_and_nothing_else_matters(found):
    first = found[SAMPLED[0]]
    assert [len(group) for group in first] == [3, 3, 2]
    assert all(len({tuple(row["response_ids"]) for row in group}) > 1 for group in first)
    for other in (found["again"], list(reversed(found["one by one"]))):
        check_same(other, first)


def check_same(groups, others):
    """But for rounding: what shares a batch is the engine's own choice."""
    assert [row["response_ids"] for row in rows(groups)] == [row["response_ids"] for row in rows(others)]
    for made, other in zip(rows(groups), rows(others), strict=True):
        assert made["logprobs"] == pytest.approx(other["logprobs"], abs=1e-5)


def test_a_sample_does_not_depend_on_how_many_are_asked_for(found):
    """vLLM read some prompts in two parts, drew a number behind each, and could not take it back on a CPU."""
    (crowd,), (few,) = found["crowd"], found["of a crowd"]
    assert len(crowd) == 40
    assert [each["response_ids"] for each in crowd[30:]] == [each["response_ids"] for each in few]


def test_prompts_come_back_as_they_were_given(found):
    assert {tuple(row["prompt_ids"]) for row in found["greedy"][1]} == {(8, 9, 10)}
    assert found["none"] == []


def test_a_response_ends_with_the_end_token_or_its_budget(found):
    ended = set()
    for budget, case in {24: "long", 1: "one token"}.items():
        for made in rows(found[case]):
            ids, reason = made["response_ids"], made["finish_reason"]
            assert END not in ids[:-1] and len(ids) == len(made["logprobs"]) <= budget
            assert reason == ("stop" if ids[-1] == END else "length") and (reason == "stop" or len(ids) == budget)
            ended.add(reason)
    assert ended == {"stop", "length"}, "the cases show both ends"
    for made in rows(found["ignore_eos"]):
        assert len(made["response_ids"]) == 24 and made["finish_reason"] == "length"
    assert any(END in made["response_ids"] for made in rows(found["ignore_eos"]))


def test_a_stop_text_ends_a_response_after_the_token_that_completes_it(found):
    """The tokenizer has a token for each character: 5 is token 9, 7 is token 11. Without it the tokens are the same."""
    stopped = 0
    for made, unstopped in zip(rows(found["stop"]), rows(found["long"]), strict=True):
        ids, whole = made["response_ids"], unstopped["response_ids"]
        ends = [i + 1 for i, token in enumerate(whole) if token == 9 or whole[max(i - 1, 0) : i + 1] == [11, 11]]
        assert ids == whole[: min(ends, default=len(whole))]
        assert made["finish_reason"] == ("stop" if ends else unstopped["finish_reason"])
        stopped += bool(ends)
    assert stopped


def test_it_ends_when_enough_requests_are_done(launched, kind, found):
    """Those are kept that are done first. The three may all end at their budget, but not with both models."""
    longest = [max(len(row["response_ids"]) for row in group) for group in found["long"]]
    kept = [index for index, group in enumerate(found["enough"]) if group]
    first = min(longest[index] for index in kept)  # one that was begun a token earlier may be done with one more
    assert first <= min(longest) + 1 and (len(kept) < len(longest) or min(longest) == max(longest)), longest
    assert not all(all(launched(kind)[each]["enough"]) for each in LAYOUTS)
    check_same([found["enough"][index] for index in kept], [found["long"][index] for index in kept])
    check_same(found["after enough"], found["again"])


def test_a_fresh_engine_samples_as_the_first_did(found):
    check_same(found["restarted"], found["again"])


def test_weights_a_b_a(found, forward):
    for case, version in {"sampled from b": "b", "sampled from a": "a"}.items():
        assert max(gap(made, forward(made, version)) for made in rows(found[case])) < BOUND
    check_same(found["sampled from a"], found["again"])
    assert rows(found["sampled from b"]) != rows(found["sampled from a"])


def check_fingerprints(told: list, model) -> None:
    """Each of the trainer's tensors is in one of the engine's, and these are the sums of their parts."""
    wanted = expected_fingerprints(model)
    assert sorted(name for names, _ in told for name in names) == sorted(wanted)
    for names, number in told:
        assert number == sum(wanted[name] for name in names) % (1 << 64), names


@pytest.mark.parametrize("case, version", [("a", "a"), ("b", "b"), ("a again", "a")])
def test_fingerprints_are_those_of_the_trainer(kind, found, models, layout, case, version):
    told = found[f"fingerprints {case}"]
    if kind == "local":
        assert told is None, "it has the trainer's own weights"
    else:
        check_fingerprints(told, load_version(models, layout, version))


def test_vllm_takes_weights_without_a_session_too(launched, forward, models, layout):
    """As versions without one do: what it then has and samples is the same."""
    found, in_sessions = launched("vllm")[f"{layout} reloaded"], launched("vllm")[layout]
    for case, version in {"a": "b", "b": "b", "a again": "a"}.items():
        check_fingerprints(found[f"fingerprints {case}"], load_version(models, layout, version))
    for case in ("sampled from b", "sampled from a"):
        check_same(found[case], in_sessions[case])


def test_sleep_and_wake_twice_do_what_they_do_once(kind, found, forward):
    check_same(found["woke with its own weights"], found["again"])
    assert max(gap(made, forward(made, "b")) for made in rows(found["woke with new weights"])) < BOUND
    if kind != "local":
        assert "none" not in (found["asleep True"], found["asleep False"]), "it does not sample while it sleeps"


def test_a_prompt_over_the_limit_is_told_in_one_line(kind, found):
    if kind != "local":
        assert found["too long"].startswith("RunFailed: a prompt of 190 tokens and 24 new ones")
        assert "--max_len" in found["too long"] and "\n" not in found["too long"]


def test_prompt_and_response_may_fill_max_len(found, forward):
    """Also beside a short one, and with one new token alone."""
    made = rows(found["fills max_len"])
    assert [(len(row["prompt_ids"]), len(row["response_ids"])) for row in made] == [(176, 24), (3, 24), (199, 1)]
    assert max(gap(row, forward(row)) for row in made) < BOUND


def test_it_leaves_the_trainers_process_as_it_was(launched, kind, layout):
    found = launched(kind)
    assert found[layout]["afterwards"] == found["untouched"]
    assert found["untouched"]["children"] == 0 and found["untouched"]["joined"]


# faults


def test_vllm_tells_what_went_wrong_in_one_line_and_a_fresh_one_goes_on(models, launched, tmp_path):
    out = tmp_path / "found.json"
    found = checked(start("vllm", [], "engine_faults.py", models, out, seconds=300) or json.loads(out.read_text()))
    no_room = "RunFailed: vLLM has no room for keys and values; set VLLM_CPU_KVCACHE_SPACE to more GiB, or lower --max_"
    assert found["no room"].startswith(no_room) and "\n" not in found["no room"]
    assert found["version"] == "1", "vLLM itself knows which weights it has"
    assert found["other version"] == "EngineFailed: vLLM sampled from weights of version 7, and 1 was pushed last"
    died = "EngineFailed: vLLM failed while it generated: RuntimeError: an illegal memory access"
    assert found["died"] == died
    assert found["fresh"] == rows(launched("vllm")["tied"][SAMPLED[0]])
    cause = "cache_dtype: Input should be 'auto', 'float16'"
    assert found["value"].startswith("RunFailed: vLLM cannot be started: ValidationError: 1 validation error")
    assert found["value"].endswith("; it was given --engine_kwargs kv_cache_dtype=int3") and "\n" not in found["value"]
    fine, mistyped, ours, fine_too, value = found["settings"]
    assert fine is fine_too is None
    assert value.startswith(f"--engine_kwargs kv_cache_dtype=int3: vLLM refuses it: {cause}")
    assert mistyped == "--engine_kwargs max_num_seq=4: vLLM has no max_num_seq; nearest: max_num_seqs"
    assert ours.startswith("--engine_kwargs load_format=auto: it is set so that weights")


def test_sglang_ends_its_own_process_alone_and_a_fresh_one_goes_on(models, launched, tmp_path):
    out = tmp_path / "found.json"
    found = checked(start("sglang", [], "engine_faults.py", models, out, seconds=300) or json.loads(out.read_text()))
    outside = (
        "EngineFailed: --engine_type sglang: RuntimeError: update_weights_from_tensor must run between begin_weight"
    )
    assert found["outside"].startswith(outside)
    shape = "was ended by signal 9; its last words: AssertionError: Attempted to load weight (torch.Size([3])) into"
    assert shape in found["shape"] and "\n" not in found["shape"]
    assert found["died"].startswith("EngineFailed: --engine_type sglang: its process was ended by signal 9")
    assert "Subprocess scheduler_0" in found["died"] and "crashed with exit code -9" in found["died"]
    assert [row["response_ids"] for row in found["fresh"]] == [
        row["response_ids"] for row in rows(launched("sglang")["tied"][SAMPLED[0]])
    ]
    assert found["workers"] == 3 and found["orphans"] == []
    assert found["marked"] and found["not marked"] == [] and found["left"] == []
    assert found["barred, but unknown to it"] == []
    assert found["value"].startswith("RunFailed: --engine_type sglang cannot be started: ")
    assert "int3" in found["value"].partition("; it was given --engine_kwargs")[0] and "\n" not in found["value"]
    fine, value = found["settings"]
    assert fine is None and value.startswith("--engine_kwargs kv_cache_dtype=int3: SGLang takes auto, fp8_e5m2, ")


# two ranks


@pytest.fixture(scope="module")
def on_ranks(models, tmp_path_factory):
    """kind -> what its cases gave on each of two ranks."""

    @cache
    def run(kind: str) -> list[dict] | str:
        out = tmp_path_factory.mktemp(f"{kind}_ranks") / "rank"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        failed = start(kind, torchrun, "engine_ranks.py", models, out, seconds=400)
        return failed or [json.loads(Path(f"{out}{rank}.json").read_text()) for rank in range(2)]

    return lambda kind: checked(run(kind))


@pytest.mark.parametrize("size", (1, 2))
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "local"])
def test_on_two_ranks_each_gets_its_own_answers(kind, layout, size, on_ranks, models, launched, forward):
    """One engine for each rank, or one for both, which has the same tensors in shards."""
    alone = launched(kind)[layout][SAMPLED[3]]
    for rank, found in enumerate(on_ranks(kind)):
        assert found["ranks that go on together"] == 2
        cases = found[f"{layout} {size}"]
        for case, version in {"0 a": "a", "1 b": "b", "2 a": "a"}.items():
            check_fingerprints(cases[case]["prints"], load_version(models, layout, version))
            made = rows(cases[case]["made"])
            assert max(gap(each, forward(each, version, 0.6)) for each in made) < BOUND
        mine = (alone[:1], alone[1:])[rank]
        assert [r["response_ids"] for r in rows(cases["0 a"]["made"])] == [r["response_ids"] for r in rows(mine)]
        assert cases["none"] == (3 if rank else 0)
