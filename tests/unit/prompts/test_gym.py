import sys

import pytest

from lightrft.args.groups.data import DataArgs
from lightrft.errors import Refused
from lightrft.prompts.dataset import load_prompts

DATA = DataArgs(prompt_data=())
SUMS = "reasoning_gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1"


def load(spec, split="train"):
    return load_prompts([spec], split, DATA)


def texts(prompts):
    return {prompt.messages[-1]["content"] for prompt in prompts}


def refusal(spec, split="train"):
    with pytest.raises(Refused) as caught:
        load(spec, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_entry_becomes_a_prompt_that_its_verifier_can_score():
    prompt = load(f"{SUMS}&size=10")[0]
    entry = prompt.columns["entry"]
    assert prompt.messages == ({"role": "user", "content": entry["question"]},)
    assert prompt.reference == entry["answer"]
    assert prompt.source == "reasoning_gym:chain_sum"
    assert entry["metadata"]["num_terms"] == 2
    assert prompt.where == f"reasoning_gym:chain_sum question {entry['metadata']['source_index']}"


def test_size_counts_distinct_questions_of_both_splits_together():
    train, test = load(f"{SUMS}&size=50"), load(f"{SUMS}&size=50", "test")
    assert len(train) + len(test) == 50
    assert len(texts(train) | texts(test)) == 50
    assert 3 <= len(test) <= 20


def test_an_exhausted_task_gives_all_it_has():
    # 10 x 10 numbers x 2 operators: 200 questions exist.
    assert len(load(f"{SUMS}&size=500&test=0")) == 200


def test_no_question_is_in_both_splits_whatever_the_seed_and_the_size():
    train, test = load(f"{SUMS}&size=150&seed=1"), load(f"{SUMS}&size=120&seed=2", "test")
    assert train and test
    assert not texts(train) & texts(test)


def test_the_same_spec_gives_the_same_prompts_and_another_seed_gives_others():
    assert load(f"{SUMS}&size=20") == load(f"{SUMS}&size=20&seed=42")
    assert texts(load(f"{SUMS}&size=20")) != texts(load(f"{SUMS}&size=20&seed=7777"))


def test_test_0_holds_nothing_out_and_test_1_everything():
    assert len(load(f"{SUMS}&size=20&test=0")) == 20
    assert len(load(f"{SUMS}&size=20&test=1", "test")) == 20
    assert "none of its 20 questions is in split 'test' with test=0" in refusal(f"{SUMS}&size=20&test=0", "test")


def test_booleans_are_parsed():
    prompts = load(f"{SUMS}&allow_negation=true&size=30")
    assert any("-" in prompt.columns["entry"]["metadata"]["expression"].split()[0] for prompt in prompts)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("reasoning_gym:chain_sums", "no task 'chain_sums'; nearest: chain_sum"),
        ("reasoning_gym:chain_sum?terms=2", "no parameter 'terms'; chain_sum has allow_negation, max_digits"),
        ("reasoning_gym:chain_sum?min_terms", "'min_terms' is not one key=value"),
        ("reasoning_gym:chain_sum?size=5&size=6", "'size=6' is not one key=value, each key once"),
        ("reasoning_gym:chain_sum?min_terms=9&max_terms=3", "AssertionError: max_terms must be >= min_terms"),
        ("reasoning_gym:chain_sum?size=0", "size=0 must be a whole number from 1 on"),
        ("reasoning_gym:chain_sum?size=true", "size=True must be a whole number"),
        ("reasoning_gym:chain_sum?seed=x", "seed=x must be a whole number from 0 on"),
        ("reasoning_gym:chain_sum?test=1.5", "test=1.5 must be a share between 0 and 1"),
    ],
)
def test_a_bad_spec_is_refused(spec, expected):
    message = refusal(spec)
    assert message.startswith(f"--prompt_data {spec}: ")
    assert expected in message


def test_an_unknown_split_is_refused():
    assert "no split 'dev'; reasoning_gym has train and test" in refusal(SUMS, "dev")


def test_without_the_package_the_way_to_install_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert "pip install reasoning-gym" in refusal(SUMS)
