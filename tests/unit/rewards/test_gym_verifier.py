"""Every task of the installed reasoning_gym: its true answers keep their scores, hostile ones do nothing."""

from contextlib import closing
from functools import cache

import pytest
import reasoning_gym
from reasoning_gym.factory import DATASETS

from lightrft.rewards import gym_verifier
from lightrft.rewards.rules import RuleReward
from lightrft.rewards.sandbox.process import Limits, Sandbox, Unjudged

TASKS = sorted(set(DATASETS) - {"composite"})  # composite has no questions of its own
BY_SYMPY = ["countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "intermediate_integration"]
BY_EVAL = ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion"]
CALLS = {
    "a command": "__import__('os').system('touch {at}')",
    "a file": "open('{at}', 'w')",
    "a folder": "exec('import os; os.mkdir(\"{at}\")')",
    "a list": "[open(at, 'w') for at in ['{at}']]",
    "classes": "().__class__.__base__.__subclasses__()",
    "a text for sympy": 'sympify(\'open("{at}", "w")\')',
    "a method": "x.__class__.mro()",
    "the answer": "entry['answer']",
}
ODD = {"a null byte": "5\0", "a lone surrogate": "\ud800", "digits": "9" * 10_000, "nothing": "", "an end": "exit()"}
LONG = {"a power": "9**9**9**9", "a factorial": "factorial(10**9)", "brackets": "[" * 1_000_000, "minus": "-" * 200_000}


def made(processor_s):
    return closing(Sandbox(gym_verifier.__name__, Limits(processor_s)))


@pytest.fixture(scope="module")
def child():
    with made(5.0) as child:
        yield child


@pytest.fixture(scope="module")
def hasty():
    with made(0.3) as child:
        yield child


def scores(child, task, answers, entry):
    """What comes back for each: the score, or the reason why there is none."""

    def score(answer):
        try:
            return child.ask("score", task, answer, entry, what=f"the verifier of {task}")
        except Unjudged as reason:
            return str(reason)

    return {name: score(answer) for name, answer in answers.items()}


@cache
def entry_of(task, index=0):
    return reasoning_gym.create_dataset(task, seed=1, size=2)[index]


def hostile(kinds, folder):
    return {name: text.replace("{at}", str(folder / "touched")) for name, text in kinds.items()}


def test_every_task_scores_as_in_this_process(child):
    """True answers and those of other questions. An entry arrives as it is: tuples, dates, numbers as keys."""
    for task in TASKS:
        entry, other = entry_of(task), entry_of(task, 1)
        answers = {"true": entry["answer"], "other": other["answer"], "none": "nonsense", "list": "[[1, 0], [0, 1]]"}
        own = gym_verifier.score
        expected = {}
        for name, answer in answers.items():
            try:
                expected[name] = own(task, answer, entry)
            except Exception as error:
                expected[name] = type(error).__name__
        found = scores(child, task, answers, entry)
        found = {name: value.split(":")[0] if isinstance(value, str) else value for name, value in found.items()}
        assert found == expected, task
        assert entry["answer"] is None or found["true"] == 1.0, task


def test_no_hostile_answer_does_anything_in_any_task(child, tmp_path):
    for task in TASKS:
        found = scores(child, task, hostile({**CALLS, **ODD}, tmp_path), entry_of(task))
        assert list(tmp_path.iterdir()) == []
        if task in BY_SYMPY + BY_EVAL:
            assert all(value in (0.0, 0.01) for value in found.values()), (task, found)


@pytest.mark.parametrize("task", BY_SYMPY + BY_EVAL)
def test_a_verifier_that_outlives_its_limit_is_named_and_the_next_answer_is_judged(hasty, task):
    entry = entry_of(task)
    found = scores(hasty, task, {"power": LONG["a power"], "none": "nonsense"}, entry)
    assert found["power"] == f"the verifier of {task} took more than 0.3 s of processor time"
    assert found["none"] in (0.0, 0.01)


def test_an_invalid_sample_blames_the_verifier_of_its_task(rollout, monkeypatch, hasty):
    monkeypatch.setattr(gym_verifier, "sandbox", lambda module: hasty)
    known = {"source": "reasoning_gym:n_queens", "columns": {"entry": entry_of("n_queens")}}
    [reward] = RuleReward("reasoning_gym").score([rollout("9**9**9**9", **known)])
    assert reward.error == "the verifier of n_queens took more than 0.3 s of processor time"


@pytest.mark.slow
def test_no_task_outlives_its_limit(tmp_path):
    with made(2.0) as child:
        for task in TASKS:
            entry = entry_of(task)
            scores(child, task, hostile({**CALLS, **ODD, **LONG}, tmp_path), entry)
            assert list(tmp_path.iterdir()) == []
            answer = entry["answer"]
            assert answer is None or scores(child, task, {"true": answer}, entry) == {"true": 1.0}, task


def test_the_last_answer_block_is_judged(rollout):
    entry = entry_of("chain_sum")
    known = {"source": "reasoning_gym:chain_sum", "columns": {"entry": entry}}
    answer = int(entry["answer"])
    responses = [f" {answer:+,}.0 ", f"<think>1</think><answer>{answer}</answer>", "nothing"]
    scored = RuleReward("reasoning_gym").score([rollout(response, **known) for response in responses])
    assert [reward.total for reward in scored] == [1.0, 1.0, 0.0]


def test_it_cannot_judge_other_rows(rollout):
    [reward] = RuleReward("reasoning_gym").score([rollout("5", 5, source="gsm8k")])
    assert "not from reasoning_gym (source 'gsm8k')" in reward.error
