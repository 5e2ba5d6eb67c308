import math
import subprocess
import sys

import pytest

from lightrft.errors import Refused, RunFailed
from lightrft.rewards.base import check_some_valid, checked, describe_invalid, invalid
from lightrft.rewards.combine import CombinedReward, build_rewards
from lightrft.types import Prompt, Reward


class Fixed:
    def __init__(self, name, *values):
        self.name = name
        self.values = values

    def score(self, rollouts):
        return [self.reward(value) for value in self.values]

    @staticmethod
    def reward(value):
        """A text is an error; None does not apply."""
        if value is None:
            return None
        return invalid(value) if isinstance(value, str) else checked(value)


def prompt(reference=None, source="s", **columns):
    return Prompt(id="p", messages=(), reference=reference, source=source, columns=columns)


def test_the_total_is_the_weighted_sum_and_parts_stay_unweighted(rollout):
    combined = CombinedReward([Fixed("right", 1.0, 0.0), Fixed("format", 0.5, 1.0)], {"format": 0.2})
    first, second = combined.score([rollout("a"), rollout("b")])
    assert first == Reward(total=1.0 + 0.2 * 0.5, parts={"right": 1.0, "format": 0.5})
    assert second == Reward(total=0.2, parts={"right": 0.0, "format": 1.0})
    assert combined.primary == "right"


def test_one_invalid_part_makes_the_sample_invalid_even_with_weight_0(rollout):
    combined = CombinedReward([Fixed("right", 1.0, 1.0), Fixed("format", "broken", 1.0)], {"format": 0.0})
    bad, good = combined.score([rollout("a"), rollout("b")])
    assert math.isnan(bad.total)
    assert bad.error == "format: broken"
    assert bad.parts["right"] == 1.0
    assert (good.total, good.error) == (1.0, None)


def test_a_sum_that_overflows_is_invalid_and_no_reward(rollout):
    [found] = CombinedReward([Fixed("a", 3e38), Fixed("b", 3e38)], {}).score([rollout("x")])
    assert math.isnan(found.total) and found.error == "the weighted sum of a, b is 6e+38, beyond float32"
    [found] = CombinedReward([Fixed("a", 3e38)], {"a": 1e300}).score([rollout("x")])
    assert math.isnan(found.total) and found.error == "the weighted sum of a is inf"


def test_an_empty_batch_has_no_rewards():
    assert CombinedReward([Fixed("right")], {}).score([]) == []


def test_a_weight_for_no_reward_is_refused_with_the_nearest_name():
    with pytest.raises(Refused, match=r"^--reward_weights fromat=1.0: .*did you mean format\?\); known: exact, format"):
        CombinedReward([Fixed("exact"), Fixed("format")], {"fromat": 1.0})


def test_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(Refused, match="^--reward_weights exact=nan"):
        CombinedReward([Fixed("exact")], {"exact": math.nan})


def test_a_sample_is_judged_by_the_rewards_that_apply_to_it(rollout):
    combined = CombinedReward([Fixed("maths", 1.0, None, None), Fixed("code", None, 0.5, None)], {"code": 4.0})
    sums, program, neither = combined.score([rollout("a"), rollout("b"), rollout("c")])
    assert sums == Reward(total=1.0, parts={"maths": 1.0})
    assert program == Reward(total=2.0, parts={"code": 0.5})
    assert math.isnan(neither.total)
    assert neither.error == "no reward applies to this sample: maths, code returned None"


def test_an_invalid_part_is_not_saved_by_one_that_does_not_apply(rollout):
    [bad] = CombinedReward([Fixed("maths", None), Fixed("code", "broken")], {}).score([rollout("a")])
    assert (bad.error, list(bad.parts)) == ("code: broken", ["code"])


def test_rewards_of_one_name_are_refused_with_their_files(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("def score(responses):\n    return [0.0] * len(responses)\n")
    entries = [f"{tmp_path}/a.py:score", "exact", f"{tmp_path}/b.py:score"]
    with pytest.raises(Refused) as caught:
        build_rewards(entries, {}, [prompt("x")])
    assert str(caught.value) == (
        f"--reward_fn: {entries[0]} and {entries[2]} are named 'score', which is the key of reward/score and "
        "--reward_weights score=...; rename all functions but one"
    )


def test_a_reward_that_is_named_twice_is_refused_with_its_weight():
    with pytest.raises(Refused, match="^--reward_fn names exact 2 times; --reward_weights exact=2 counts it as often$"):
        build_rewards(["exact", "exact"], {}, [prompt("x")])


def test_rules_and_functions_are_built_in_order(tmp_path, rollout):
    (tmp_path / "mine.py").write_text(
        "def short(responses, level):\n    return [-len(r) + l for r, l in zip(responses, level)]"
    )
    combined = build_rewards(["exact", f"{tmp_path}/mine.py:short"], {"short": 0.1}, [prompt("x", level=2)])
    [reward] = combined.score([rollout("x", "x", columns={"level": 3})])
    assert combined.primary == "exact"
    assert reward.parts == {"exact": 1.0, "short": 2.0}
    assert reward.total == pytest.approx(1.2)


def test_reasoning_gym_prompts_bring_their_own_reward_only_if_all_are_from_there():
    puzzle = prompt("1", source="reasoning_gym:chain_sum", entry={"answer": "1"})
    assert build_rewards([], {}, [puzzle]).primary == "reasoning_gym"
    with pytest.raises(Refused, match="no reward is given: --reward_fn <rule> .*last_number.* file.py:function"):
        build_rewards([], {}, [puzzle, prompt("1")])


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            "last_numbr",
            r"no such rule \(did you mean last_number\?\); known: last_number, exact, math, boxed, format",
        ),
        ("mine.py", "which function\\? mine.py:<function> works"),
        ("last_number", "needs a reference with a number .--label_key.*none of the 1 prompts has it"),
        ("reasoning_gym", "needs --prompt_data reasoning_gym:<task>, and none of the 1 prompts has it"),
    ],
)
def test_a_reward_that_cannot_work_is_refused(entry, expected):
    with pytest.raises(Refused, match=f"^--reward_fn {entry}:? ?.*{expected}"):
        build_rewards([entry], {}, [prompt()])


def test_a_step_without_one_valid_reward_ends_the_run_with_the_most_frequent_error():
    errors = ("x: rare", "x: often", "x: often")
    with pytest.raises(RunFailed) as caught:
        check_some_valid(errors, step=3)
    assert str(caught.value).startswith(
        "every reward of step 3 is invalid (2 of 3 samples: x: often); mend --reward_fn"
    )
    check_some_valid([*errors, None], step=3)
    check_some_valid([], step=3)


def test_what_is_invalid_is_said_with_its_count_and_most_frequent_reason(rollout):
    scored = [rollout("a", reward=invalid(error)) for error in ("x: rare", "x: often", "x: often")]
    assert describe_invalid([*scored, rollout("a", reward=checked(1.0))]) == (
        "3 of 4 samples are invalid (2: x: often; 1 for other reasons)"
    )
    assert describe_invalid(scored[1:]) == "2 of 2 samples are invalid (2: x: often)"
    assert describe_invalid([rollout("a", reward=checked(1.0))]) is None


def test_rewards_check_other_prompts_without_being_built_again(tmp_path):
    code = "def score(responses, level): return [0.0] * len(responses)\n"
    (tmp_path / "mine.py").write_text(code)
    rewards = build_rewards(["last_number", f"{tmp_path}/mine.py:score"], {}, [prompt("5", level=1)])
    rewards.check([prompt("6", level=2)])
    with pytest.raises(Refused, match="^--reward_fn last_number needs a reference with a number .*none of the 1 prom"):
        rewards.check([prompt("six", level=2)])
    with pytest.raises(Refused, match="mine.py:score asks for 'level', which does not exist"):
        rewards.check([prompt("6")])


def test_rewards_import_without_torch():
    code = "import sys, lightrft.rewards.combine, lightrft.prompts.dataset; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_rule_objects_to_a_row_that_it_can_never_judge():
    good, words, nothing = (Prompt(id=str(i), messages=(), reference=r) for i, r in enumerate(("the 5", "none", None)))
    rewards = build_rewards(["format", "last_number"], {}, [good, words, nothing])
    assert rewards.objection(good) is None
    for prompt in (words, nothing):
        assert (rewards.objection(prompt) or "").startswith("--reward_fn last_number needs a reference with a number")
    assert build_rewards(["exact"], {}, [good, nothing]).objection(words) is None
