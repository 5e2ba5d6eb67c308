import time
from dataclasses import replace

import pytest

from lightrft.rewards.answers.extraction import answer_of, last_box
from lightrft.rewards.answers.last_number import last_number_in
from lightrft.rewards.answers.moments import moment
from lightrft.rewards.answers.quantities import quantity
from lightrft.rewards.rules import RULES


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("5", "5"),
        (" five \n", "five"),
        ("<answer>5</answer>", "5"),
        ("<think>3</think>\n<answer> 5 </answer> done", "5"),
        ("<answer>4</answer> no: <answer>5</answer>", "5"),
        ("I use <answer> tags: <answer>5</answer>", "5"),
        ("<answer><answer>5</answer></answer>", "5"),
        ("<answer>5", "5"),
        ("5</answer>", "5"),  # the prompt began the answer
        ("5</answer> or 6</answer>", "5"),
        ("<answer></answer> 5", ""),
        ("<answer>4</answer><answer></answer>", ""),
        ("<ANSWER>5</Answer>", "5"),
        ("< answer >5< /answer >", "5"),
        ("so 4</think> 5", "5"),  # the prompt began the thoughts
        ("<think>3</think> then <think>4</think> 5", "5"),
        ("3</think> 4</think> 5", "5"),
        ("<THINK>4</Think>5", "5"),
        ("<think>maybe <answer>4</answer></think>5", "5"),
        ("<answer>4</answer></think><answer>5</answer>", "5"),
        ("<answer><think>4</think>5</answer>", "5"),
        ("<think>so 4", ""),
        ("<think>so <answer>4</answer>", ""),
        ("<answer>4</answer><think>or", ""),
        ("<think>4</think>", ""),
        ("", ""),
        ("a < b and <b>5</b>", "a < b and <b>5</b>"),
    ],
)
def test_the_answer_of_a_response(response, answer):
    assert answer_of(response) == answer


@pytest.mark.parametrize("rule", ["last_number", "exact", "math"])
def test_thoughts_are_no_answer_for_any_rule(rule):
    def verdict(response, reference):
        return RULES[rule].judge(response, reference, None)

    assert verdict("<think>4</think><answer>5</answer>", "5") == 1.0
    assert verdict("<think>4</think><answer>5</answer>", "4") == 0.0
    assert verdict("4</think>5", "5") == 1.0
    assert verdict("<answer>5</answer> in 3 steps", "5") == 1.0
    assert verdict("<answer>5</answer> in 3 steps", "3") == 0.0
    assert verdict("<think>5", "5") == 0.0


@pytest.mark.parametrize(
    ("rule", "response", "stop_text", "reference"),
    [
        ("exact", "Paris###", "###", "Paris"),
        ("exact", "Paris\n\n", "\n\n", "Paris"),
        ("exact", "Paris.", ".", "Paris."),
        ("exact", "<answer>Paris</answer>", "</answer>", "Paris"),
        ("exact", "<answer>Paris</answer>", "</answer>", "<answer>Paris</answer>"),
        ("last_number", "It is 5.\nQuestion 2:", "Question 2:", "5"),
        ("math", "It is 5.\nQuestion 2:", "Question 2:", "5"),
        ("math", "5!", "!", "5"),
        ("last_number", r"\boxed{5}", "}", "5"),
        ("boxed", r"\boxed{\frac{1}{2}}", "}}", "1/2"),
    ],
)
def test_the_stop_text_is_not_part_of_the_answer(rollout, rule, response, stop_text, reference):
    ended = replace(rollout(response, reference), stop_text=stop_text)
    assert RULES[rule].judge(response, reference, ended) == 1.0
    other = replace(rollout("6", "6"), stop_text="")
    assert RULES[rule].judge("6", reference, other) == 0.0


def test_without_its_stop_text_another_answer_is_wrong(rollout):
    ended = replace(rollout("It is 5. Question 2:", "2"), stop_text="Question 2:")
    assert RULES["last_number"].judge(ended.response, "2", ended) == 0.0
    ended = replace(rollout("Rome###", "Paris"), stop_text="###")
    assert RULES["exact"].judge(ended.response, "Paris", ended) == 0.0


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{a}", "a"),
        (r"\boxed {a}{b}", "a"),
        (r"\fbox{a}", "a"),
        (r"\boxed{\frac{a}{b}} }", r"\frac{a}{b}"),
        (r"\boxed{\{a\}} b", r"\{a\}"),
        (r"\boxed{a\\} b", r"a\\"),
        (r"\boxed{\left\{a\right.} b}", r"\left\{a\right."),
        (r"\boxed{\boxed{a}b}", "a"),
        (r"\boxed{}", ""),
        (r"\boxed{a", ""),
        (r"boxed{a} \box{a}", None),
    ],
)
def test_the_last_box(text, inside):
    assert last_box(text) == inside


HOSTILE = ["1", "1,", "1,111,", "1 ", "1/", "0.3", "1.1", "1e1", "1_{ba", "10^", "x1 ", "(1", "٣", "\u00bd", "\u00b2"]
HOSTILE += [".", "(", "{", "\\", "'", "''", '"', "\u201c", "`", "*", "* ", "*a ", "~~a", "_", "$", "-", "- ", "- 5\n"]
HOSTILE += [r"\frac{", r"\boxed{", r"\text{", r"0.1\dot1", "<answer>", "<think>", "</think>", "answer is ", "a", "\n"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_anything_is_read_in_a_second(piece):
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    last_number_in(answer_of(text))
    last_box(text)
    quantity(text)
    moment(text)
    assert time.process_time() - started < 10  # what grows with the square takes minutes
