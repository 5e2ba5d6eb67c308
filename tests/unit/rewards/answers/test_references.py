"""References that nothing can be judged by, which are bad rows at the start; and what tables make of good ones."""

import datetime
import math
from decimal import Decimal
from fractions import Fraction

import numpy
import pandas
import pytest

from lightrft.args import parse
from lightrft.errors import Refused
from lightrft.preflight import check_inputs
from lightrft.rewards.answers.references import objection, text_of
from lightrft.rewards.rules import RULES, RuleReward
from lightrft.types import Prompt

WITH_REFERENCE = ("last_number", "exact", "math", "boxed")


def objections(reference):
    prompt = Prompt(id="", messages=(), reference=reference)
    return [RuleReward(rule).objection(prompt) for rule in WITH_REFERENCE]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (None, "the row has no reference"),
        (True, "the reference True is of type bool"),
        (numpy.bool_(False), f"the reference {numpy.bool_(False)!r} is of type bool"),
        ([5], "the reference [5] is of type list"),
        (("5",), "the reference ('5',) is of type tuple"),
        ({"value": 5}, "the reference {'value': 5} is of type dict"),
        (numpy.array([5]), "the reference array([5]) is of type ndarray"),
        (b"5", "the reference b'5' is of type bytes"),
        (5j, "the reference 5j is of type complex"),
        (datetime.date(2024, 5, 3), "the reference datetime.date(2024, 5, 3) is of type date"),
        (numpy.datetime64("2024-05-03"), f"the reference {numpy.datetime64('2024-05-03')!r} is of type datetime64"),
        (pandas.Timestamp("2024-05-03"), "the reference Timestamp('2024-05-03 00:00:00') is of type Timestamp"),
        (math.nan, "the reference nan is no finite number"),
        (numpy.float32("nan"), "the reference nan is no finite number"),
        (Decimal("NaN"), "the reference NaN is no finite number"),
        (-math.inf, "the reference -inf is no finite number"),
        ("", "the reference '' is empty"),
        (" \n", r"the reference ' \n' is empty"),
        ([1] * 99, "the reference [1, 1, "),
    ],
)
def test_no_rule_can_judge_by_these(reference, reason):
    for rule, found in zip(WITH_REFERENCE, objections(reference), strict=True):
        start = f"--reward_fn {rule} needs {RULES[rule].needs}: {reason}"
        assert found is not None and found.startswith(start) and len(found) < 250


# fmt: off
NO_NUMBER = ["none", "Paris", "(B)", "NaN", "12:30", "2024-05-03", "3,5", "3, 5", "(3, 4)", "x^2", "x > 5",
             "1/0", "\\boxed{}"]
NO_MATHEMATICS = ["?", "...", "$$", "\\boxed{}", "\\text{}", "\\frac{1}{", "x +", "5 =", "who knows the answer here", 
                  "nan", "https://example.com", "\ud800"]
# fmt: on


def test_a_text_without_a_number_is_none_for_last_number():
    for text in NO_NUMBER:
        number, text_alone, *_ = objections(text)
        assert f"{text!r} holds no number that is an answer" in (number or ""), text
        assert text_alone is None


def test_what_the_library_cannot_read_is_none_for_mathematics():
    for text in NO_MATHEMATICS:
        _, text_alone, *mathematics = objections(text)
        assert text_alone is None
        assert all(f"{text!r} cannot be read as mathematics; LaTeX" in (found or "") for found in mathematics), text


def test_a_reference_that_takes_for_ever_is_found_before_the_run(monkeypatch):
    from lightrft.rewards.answers import references
    from lightrft.rewards.sandbox.process import Limits, Sandbox

    child = Sandbox("lightrft.rewards.answers.math_answers", Limits(processor_s=0.5))
    monkeypatch.setattr(references, "sandbox", lambda module: child)
    reason = objection(references.mathematics_of, "9^{9^{9^9}}")
    child.close()
    assert (
        reason
        == "the reference '9^{9^{9^9}}' cannot be read: reading the reference took more than 0.5 s of processor time"
    )


@pytest.mark.parametrize(
    "reference",
    [5, 5.0, "5", " 5 ", numpy.int64(5), numpy.float32(5), numpy.array(5), numpy.str_("5"), Decimal("5"), Fraction(5)],
)
def test_numbers_of_every_type_are_numbers(reference):
    assert objections(reference) == [None] * 4
    assert [RULES[rule].judge(r"\boxed{5}", reference, None) for rule in ("last_number", "math", "boxed")] == [1.0] * 3
    assert [RULES[rule].judge(r"\boxed{6}", reference, None) for rule in ("last_number", "math", "boxed")] == [0.0] * 3
    assert RULES["exact"].judge("5", reference, None) == 1.0


def test_numbers_keep_the_digits_that_they_have():
    assert text_of(numpy.float32(0.1)) == "0.1"
    assert RULES["last_number"].judge("0.1", numpy.float32(0.1), None) == 1.0
    assert RULES["last_number"].judge("1000", Decimal("1E+3"), None) == 1.0
    assert RULES["exact"].judge("5.0", "5", None) == 0.0
    assert RULES["exact"].judge("5.0", 5.0, None) == 1.0


@pytest.mark.parametrize("flag", ["--prompt_data", "--eval_data"])
def test_the_row_the_value_and_what_works_are_named(tiny_folder, tmp_path, flag):
    """A column of a table, with an empty cell in it, among good rows and in both kinds of data."""
    table = str(tmp_path / "table.parquet")
    labels = [[2, 5], None] if flag == "--prompt_data" else [[3], [4]]
    pandas.DataFrame({"prompt": ["1+1=", "1+2="], "label": labels}).to_parquet(table)
    data = ["--prompt_data", str(tiny_folder / "train.jsonl"), *([table] if flag == "--prompt_data" else [flag, table])]
    batch = "--rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4 --prompt_max_len 16 --max_len 24"
    model = ["--pretrain", str(tiny_folder / "model"), "--save_path", str(tmp_path / "run")]
    with pytest.raises(Refused) as caught:
        check_inputs(parse([*model, *data, *batch.split(), "--reward_fn", "last_number"]))
    said = str(caught.value)
    assert said.startswith(flag) and f"{table} row 1: " in said
    assert "--reward_fn last_number needs a reference with a number (--label_key names its column)" in said
    assert " is of type " in said and "2" in said


def test_a_row_without_its_reference_names_the_columns_that_are_there():
    found = RULES["last_number"].objection
    assert found(Prompt("a", (), columns={"answer": "5", "level": 1})) == (
        "the row has no reference; columns there: answer, level"
    )
    assert found(Prompt("a", ())) == "the row has no reference; columns there: none but the prompt"
    assert found(Prompt("a", (), reference="5")) is None
