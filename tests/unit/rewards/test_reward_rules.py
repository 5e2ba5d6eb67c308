import math

import pytest

from lightrft.rewards.rules import RuleReward, last_number, well_formed


@pytest.mark.parametrize("reference", [72, 72.0, "72", "$72", "60 + 12 is #### 72"])
def test_a_reference_is_read_like_a_response(reference):
    assert last_number("The answer is 72.", reference) == 1.0


def test_long_numbers_are_compared_exactly():
    assert last_number("12345678901234567891", "12345678901234567890") == 0.0


def test_a_response_without_a_number_is_wrong_not_invalid(rollout):
    [reward] = RuleReward("last_number").score([rollout("no idea", 5)])
    assert (reward.total, reward.error) == (0.0, None)


@pytest.mark.parametrize(
    ("rule", "reference", "error"),
    [
        ("last_number", None, "the row has no reference"),
        ("exact", None, "the row has no reference"),
        ("last_number", "none", "the reference 'none' holds no number"),
        ("exact", [1], "the reference [1] is of type list"),
        ("last_number", True, "the reference True is of type bool"),
    ],
)
def test_a_reference_that_cannot_be_used_makes_that_sample_invalid(rollout, rule, reference, error):
    bad, good = RuleReward(rule).score([rollout("5", reference), rollout("5", "5")])
    assert math.isnan(bad.total)
    assert error in bad.error
    assert (good.total, good.error) == (1.0, None)


def test_exact_compares_stripped_texts(rollout):
    scored = RuleReward("exact").score([rollout(" Paris\n", "Paris"), rollout("paris", "Paris"), rollout("5", 5)])
    assert [reward.total for reward in scored] == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("<think>a\nb</think>\n<answer>5</answer>\n", 1.0),
        ("<think></think><answer></answer>", 1.0),
        ("<answer>5</answer><think>a</think>", 0.0),
        ("a</think><answer>5</answer>", 0.0),
        ("<think>a</think>", 0.0),
        ("well <think>a</think><answer>5</answer>", 0.0),
        ("<think>a</think><answer>5</answer> done", 0.0),
        ("<think>a<think>b</think></think><answer>5</answer>", 0.0),
    ],
)
def test_the_format_is_one_think_block_and_then_one_answer_block(response, value):
    assert well_formed(response) == value
