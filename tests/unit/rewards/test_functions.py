import math
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

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
    [
        [0.5, 1],
        (True, np.float32(1.0)),
        np.array([0.5, 1.0]),
        np.array([False, True]),
        [np.int64(3), np.bool_(1)],
        [Decimal("0.25"), Fraction(1, 4)],
        torch.tensor([0.5, 1.0], dtype=torch.bfloat16),
        [torch.tensor(True), torch.tensor(0.5)],
        [3.4028234663852886e38, -3.4028234663852886e38],
    ],
)
def test_all_kinds_of_numbers_are_taken(returning, rollout, value):
    rewards = returning(value).score([rollout("a"), rollout("b")])
    assert [reward.total for reward in rewards] == [float(item) for item in value]
    assert all(type(reward.total) is float for reward in rewards)


@pytest.mark.parametrize(
    "bad", [None, math.nan, math.inf, -math.inf, 10**400, 3.5e38, -1e39, np.float64(1e200), Decimal("1e50")]
)
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
        (["x", 1j], "returned 'x' (str) for a sample; expected a number"),
        (iter([1.0, 2.0]), "returned list_iterator; expected a list of 2 numbers"),
        (np.ones((2, 2)), "returned [1.0, 1.0] (list) for a sample"),
    ],
)
def test_a_wrong_return_value_ends_the_run_with_one_line(returning, rollout, value, expected):
    with pytest.raises(RunFailed) as caught:
        returning(value).score([rollout("a"), rollout("b")])
    assert str(caught.value).startswith("--reward_fn ")
    assert "mine.py:score " in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("odd", ["x", 1j, np.complex128(1), [1.0], np.ones(2), "7", b"1", {"score": 1}, np.str_("x")])
def test_one_value_that_is_no_number_is_one_invalid_sample(returning, rollout, odd):
    first, second = returning([odd, 1.0]).score([rollout("a"), rollout("b")])
    assert math.isnan(first.total) and first.error.endswith("for a sample; expected a number")
    assert (second.total, second.error) == (1.0, None)


JSON = "import json\ndef score(responses):\n    return [json.loads(r) for r in responses]"


def test_a_call_that_raises_is_made_once_more_for_each_sample(source, rollout):
    made = source("CALLS = []\n" + JSON.replace("    return", "    CALLS.append(len(responses))\n    return"))
    first, odd, last = made.score([rollout("1"), rollout("{"), rollout("3")])
    assert (first.total, last.total) == (1.0, 3.0)
    assert math.isnan(odd.total)
    assert odd.error.startswith("JSONDecodeError: ") and odd.error.endswith("(mine.py:5)")
    assert made._function.__globals__["CALLS"] == [3, 1, 1, 1]
    assert [reward.total for reward in made.score([rollout("1"), rollout("2")])] == [1.0, 2.0]
    assert made._function.__globals__["CALLS"] == [3, 1, 1, 1, 2]


def test_where_every_sample_fails_the_first_cause_is_named(source, rollout):
    rewards = source(JSON).score([rollout("{"), rollout("[")])
    assert all(math.isnan(reward.total) for reward in rewards)
    assert all(reward.error.startswith("JSONDecodeError: ") for reward in rewards)
    assert all(reward.error.endswith("(mine.py:3)") for reward in rewards)
    code = "from statistics import stdev\ndef score(responses):\n    stdev(map(len, responses))\n    return BROKEN"
    rewards = source(code).score([rollout("a"), rollout("ab")])
    assert {reward.error for reward in rewards} == {"NameError: name 'BROKEN' is not defined  (mine.py:4)"}


def test_a_response_that_is_left_out_is_one_invalid_sample(source, rollout):
    made = source("def score(responses):\n    return [len(r) for r in responses if r]")
    first, odd, last = made.score([rollout("ab"), rollout(""), rollout("c")])
    assert (first.total, last.total) == (2.0, 1.0)
    assert odd.error == "returned 0 values; expected 1, one per sample"


def test_no_change_of_an_argument_reaches_another_sample_or_call(source, rollout):
    code = """
def score(prompts, responses, references, rollouts, level, **kwargs):
    found = []
    for i in range(len(responses)):
        row = rollouts[i].prompt
        found.append(len(prompts[i][0]["content"]) + len(references[i]) + len(level[i]["a"]))
        found[-1] += len(row.columns["level"]["a"]) + len(row.reference) + len(row.messages[0]["content"])
        found[-1] += len(row.columns)
        prompts[i][0]["content"] += "x"
        references[i].append(1)
        level[i]["a"].append(1)
        row.columns["level"]["a"].append(1)
        row.columns["new"] = 1
        row.reference.append(1)
        row.messages[0]["content"] += "x"
    return found
"""
    known = {"columns": {"level": {"a": [1, 2]}}, "reference": ["r"]}
    first = rollout("a", **known)
    rows = [first, replace(first, response="b")]
    made = source(code, columns=["level"])
    for _ in range(2):
        assert [reward.total for reward in made.score(rows)] == [9.0, 9.0]
    assert (first.prompt.columns, first.prompt.reference) == ({"level": {"a": [1, 2]}}, ["r"])


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
