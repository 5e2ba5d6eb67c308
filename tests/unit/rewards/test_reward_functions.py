import math

import numpy as np
import pytest

from lightrft.errors import Refused, RunFailed
from lightrft.rewards.functions import FunctionReward


@pytest.fixture
def source(tmp_path):
    def make(code, columns=(), name="score"):
        (tmp_path / "mine.py").write_text(code)
        return FunctionReward(f"{tmp_path / 'mine.py'}:{name}", set(columns))

    return make


@pytest.fixture
def returning(source):
    """A source whose function returns the given object."""

    def make(value):
        made = source("BOX = []\ndef score(responses):\n    return BOX[0]")
        made._function.__globals__["BOX"].append(value)
        return made

    return make


def test_the_function_gets_what_its_signature_asks_for_in_order(source, rollout):
    made = source(
        "def score(prompts, responses, references, rollouts, level, bonus=0.5, *rest):\n"
        "    assert responses == [r.response for r in rollouts]\n"
        "    return [len(p[0]['content']) + len(c) * 10 + r * 100 + (l or 0) * 1000 + bonus\n"
        "            for p, c, r, l in zip(prompts, responses, references, level)]\n",
        columns=["level", "unused", "rest"],
    )
    rows = [rollout("ab", 3, question="q", columns={"level": 4}), rollout("abc", 5, question="qq")]
    assert made.name == "score"
    assert [reward.total for reward in made.score(rows)] == [4321.5, 532.5]


def test_keyword_arguments_get_everything_but_the_rollouts(source, rollout):
    made = source(
        "def score(**given):\n"
        "    assert given['odd name'] == [7]\n"
        "    assert sorted(given) == ['odd name', 'prompts', 'references', 'responses'], given\n"
        "    return [1]\n",
        columns=["odd name"],
    )
    [reward] = made.score([rollout("x", columns={"odd name": 7})])
    assert (reward.total, reward.error) == (1.0, None)


def test_it_is_called_once_for_a_batch_and_not_for_an_empty_one(source, rollout):
    made = source("CALLS = []\ndef score(responses):\n    CALLS.append(1)\n    return [len(CALLS)] * len(responses)")
    assert made.score([]) == []
    assert [reward.total for reward in made.score([rollout("a"), rollout("b")])] == [1.0, 1.0]


@pytest.mark.parametrize(
    "value",
    [[0.5, 1], (True, np.float32(1.0)), np.array([0.5, 1.0]), np.array([False, True]), [np.int64(3), np.bool_(1)]],
)
def test_all_kinds_of_numbers_are_taken(returning, rollout, value):
    rewards = returning(value).score([rollout("a"), rollout("b")])
    assert [reward.total for reward in rewards] == [float(item) for item in value]
    assert all(type(reward.total) is float for reward in rewards)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf, 10**400])
def test_what_is_not_finite_makes_that_sample_invalid(returning, rollout, bad):
    first, second = returning([bad, 1.0]).score([rollout("a"), rollout("b")])
    assert math.isnan(first.total)
    assert first.error
    assert (second.total, second.error) == (1.0, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1.0], "returned 1 values; expected 2, one per sample"),
        (1.0, "returned float; expected a list of 2 numbers"),
        (np.float64(1.0), "returned float; expected a list of 2 numbers"),
        (None, "returned NoneType; expected a list of 2 numbers"),
        ("ab", "returned str; expected a list of 2 numbers"),
        ({0: 1, 1: 2}, "returned dict; expected a list of 2 numbers"),
        (["x", 1], "returned 'x' (str) for a sample; expected a number"),
        (np.ones((2, 2)), "returned [1.0, 1.0] (list) for a sample"),
    ],
)
def test_a_wrong_return_value_ends_the_run_with_one_line(returning, rollout, value, expected):
    with pytest.raises(RunFailed) as caught:
        returning(value).score([rollout("a"), rollout("b")])
    assert str(caught.value).startswith("--reward_fn ")
    assert "mine.py:score " in str(caught.value)
    assert expected in str(caught.value)


def test_an_exception_makes_all_samples_invalid_and_names_the_users_line(source, rollout):
    made = source("import json\ndef score(responses):\n    return [json.loads(r) for r in responses]")
    rewards = made.score([rollout("{"), rollout("1")])
    assert all(math.isnan(reward.total) for reward in rewards)
    assert all(reward.error.startswith("JSONDecodeError: ") for reward in rewards)
    assert all(reward.error.endswith("(mine.py:3)") for reward in rewards)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def other(): ...\ndef _helper(): ...", "no function 'score' in"),
        ("def other(): ...\ndef _helper(): ...", "functions there: other"),
        ("score = 5", "no function 'score' in"),
        ("def score(:", "importing the file failed: SyntaxError"),
        ("import not_there", "importing the file failed: ModuleNotFoundError: No module named 'not_there'"),
        ("raise SystemExit(0)", "importing the file failed: SystemExit"),
        ("async def score(responses): ...", "'score' is async"),
        ("def score(responses, /): ...", "'responses' is positional-only"),
        ("score = max", "does not tell its parameters; a function that is written in Python works"),
        ("def score(responses, level): ...", "asks for 'level', which does not exist; in this trainer's convention"),
        ("def score(responses, level): ...", "there is prompts, responses, references, rollouts; data columns:"),
        ("def score(responses, level): ...", "data columns: difficulty, topic"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused_before_the_run(source, code, expected):
    with pytest.raises(Refused) as caught:
        source(code, columns=["topic", "difficulty"])
    assert str(caught.value).startswith("--reward_fn ")
    assert "\n" not in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("spec", ["nowhere.py:score", ":score", "http://x:y"])
def test_a_missing_file_is_refused(spec):
    with pytest.raises(Refused, match="no such file"):
        FunctionReward(spec, set())


def test_a_file_may_define_dataclasses(source, rollout):
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int = 2\n"
    )
    [reward] = source(code + "def score(responses):\n    return [A().x]").score([rollout("a")])
    assert reward.total == 2.0
