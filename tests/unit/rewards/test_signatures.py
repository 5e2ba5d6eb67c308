"""TRL's and verl's conventions, as their documentation describes them; which one a function follows."""

import math

import pytest

from lightrft.errors import Refused, RunFailed
from lightrft.rewards.functions import FunctionReward


@pytest.fixture
def source(tmp_path):
    def make(code, columns=()):
        (tmp_path / "mine.py").write_text(code)
        return FunctionReward(f"{tmp_path / 'mine.py'}:score", set(columns))

    return make


def totals(rewards):
    return [reward and reward.total for reward in rewards]


def test_trl_gets_texts_for_rows_that_held_a_text(source, rollout):
    """The example of TRL's documentation for the standard format, its box and its column."""
    made = source(
        "import re\n"
        "def score(completions, ground_truth, **kwargs):\n"
        r"    matches = [re.search(r'\\boxed\{(.*?)\}', completion) for completion in completions]" + "\n"
        "    contents = [match.group(1) if match else '' for match in matches]\n"
        "    return [1.0 if c == gt else 0.0 for c, gt in zip(contents, ground_truth)]\n",
        columns=["ground_truth"],
    )
    rows = [rollout(text, columns={"ground_truth": "2"}) for text in (r"It is \boxed{2}.", r"It is \boxed{3}.")]
    assert totals(made.score(rows)) == [1.0, 0.0]


def test_trl_gets_messages_for_rows_that_held_messages(source, rollout):
    made = source(
        "def score(prompts, completions, **kwargs):\n"
        "    assert prompts == ['how?', [{'role': 'user', 'content': 'why?'}]], prompts\n"
        "    return [len(completions[0]), len(completions[1][0]['content']) + 10 * len(completions[1])\n"
        "            + 100 * (completions[1][0]['role'] == 'assistant')]\n"
    )
    rows = [rollout("abc", question="how?"), rollout("abcd", question="why?", conversational=True)]
    assert totals(made.score(rows)) == [3.0, 114.0]


def test_trl_gets_token_ids_and_all_columns_by_name(source, rollout):
    made = source(
        "def score(completion_ids, **kwargs):\n"
        "    assert sorted(kwargs) == ['completions', 'label', 'odd name', 'prompts', 'references'], kwargs\n"
        "    return [ids[0] * 10 + l + o + r for ids, l, o, r in\n"
        "            zip(completion_ids, kwargs['label'], kwargs['odd name'], kwargs['references'])]\n",
        columns=["label", "odd name", "references"],
    )
    [reward] = made.score([rollout("x", 7, columns={"label": 7, "odd name": 100, "references": 1000})])
    assert (reward.total, reward.error) == (1127.0, None)


def test_trl_may_ask_for_a_column_that_has_one_of_our_names(source, rollout):
    code = "def score(completions, references):\n    return [len(c) * r for c, r in zip(completions, references)]\n"
    [reward] = source(code, columns=["references"]).score([rollout("ab", 7, columns={"references": 100})])
    assert reward.total == 200.0
    with pytest.raises(Refused, match=r"mixes conventions: this trainer's \(references\) and TRL's \(completions\); "):
        source(code)


def test_none_from_trl_does_not_apply_and_nan_is_invalid(source, rollout):
    made = source("def score(completions):\n    return [None, float('nan'), 0.0]\n")
    first, second, third = made.score([rollout("a"), rollout("b"), rollout("c")])
    assert first is None
    assert second.error == "the reward is nan"
    assert (third.total, third.error) == (0.0, None)


@pytest.mark.parametrize("name", ["trainer_state", "log_extra", "log_metric", "environments"])
def test_what_only_trls_trainer_gives_needs_a_default(source, rollout, name):
    with pytest.raises(Refused, match=f"asks for '{name}', which TRL's own trainer alone can give; {name}=None works"):
        source(f"def score(completions, {name}): ...")
    made = source(f"def score(completions, {name}=None):\n    return [float({name} is None)]")
    assert totals(made.score([rollout("a")])) == [1.0]


SEEN = "def score(data_source, solution_str, ground_truth, extra_info=None):\n"


def test_verl_is_called_for_each_sample_with_its_four_arguments(source, rollout):
    made = source(
        SEEN + "    assert data_source == 'lighteval/MATH', data_source\n"
        "    return len(solution_str) + 10 * int(ground_truth) + 100 * (extra_info or {}).get('index', 9)\n",
        columns=["extra_info", "unused"],
    )
    known = {"source": "lighteval/MATH", "reference": "5"}
    rows = [rollout("abc", **known, columns={"extra_info": {"index": 2}}), rollout("a", **known)]
    assert totals(made.score(rows)) == [253.0, 951.0]
    assert made.score([]) == []


def test_verl_in_kwargs_gets_the_same_four(source, rollout):
    made = source("def score(solution_str, **kwargs):\n    assert len(kwargs) == 3, kwargs\n    return 1", ["column"])
    assert totals(made.score([rollout("a")])) == [1.0]


def test_verls_mapping_counts_by_its_score(source, rollout):
    made = source(SEEN + "    return {'score': 0.5, 'acc': True, 'pred': '7'}\n")
    assert totals(made.score([rollout("a")])) == [0.5]
    with pytest.raises(RunFailed, match="mine.py:score returned a mapping without 'score'; keys: acc, pred$"):
        source(SEEN + "    return {'acc': True, 'pred': '7'}\n").score([rollout("a")])


def test_an_exception_from_verl_makes_that_one_sample_invalid(source, rollout):
    made = source(SEEN + "    return 1 / len(solution_str)\n")
    bad, good = made.score([rollout(""), rollout("ab")])
    assert math.isnan(bad.total) and bad.error == "ZeroDivisionError: division by zero  (mine.py:2)"
    assert (good.total, good.error) == (0.5, None)


def test_none_from_verl_is_invalid(source, rollout):
    [reward] = source(SEEN + "    return None\n").score([rollout("a")])
    assert reward.error == "the reward is None"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        ("solution_str, completions", r"mixes conventions: TRL's \(completions\) and verl's \(solution_str\); "),
        ("responses, solution_str", r"this trainer's \(responses\) and verl's \(solution_str\); a function"),
        ("completion_ids, rollouts", r"this trainer's \(rollouts\) and TRL's \(completion_ids\); a function"),
        ("solution_str, level", "asks for 'level', which does not exist; in verl's convention there is data_source, "),
        ("completions, levle", "asks for 'levle', .* TRL's convention there is prompts, .*; data columns: level$"),
    ],
)
def test_a_signature_that_cannot_be_served_is_refused(source, signature, expected):
    with pytest.raises(Refused, match=rf"^--reward_fn .*mine.py:score .*{expected}"):
        source(f"def score({signature}): ...", columns=["level"])


def test_ground_truth_alone_is_a_column_like_any_other(source, rollout):
    code = "def score(responses, ground_truth):\n    return [float(r == g) for r, g in zip(responses, ground_truth)]"
    assert totals(source(code, ["ground_truth"]).score([rollout("a", columns={"ground_truth": "a"})])) == [1.0]
