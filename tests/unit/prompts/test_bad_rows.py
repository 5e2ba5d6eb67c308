"""`--on_bad_row`: what stands in the rows, in all sources, and what the user is told."""

import json

import pytest

from lightrft.args.groups.data import DataArgs
from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRows
from lightrft.prompts.dataset import load_prompts

ERROR = DataArgs(prompt_data=())
SKIP = DataArgs(prompt_data=(), on_bad_row="skip")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """name, rows -> the name of a file in the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(name, *rows):
        (tmp_path / name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return name

    return make


GOOD, KEYLESS, BROKEN = {"prompt": "x"}, {"q": "x"}, '{"prompt": "x'


def test_error_names_the_first_of_all_sources_and_counts_the_others(file):
    one, two = file("a.jsonl", GOOD, KEYLESS, GOOD), file("b.jsonl", BROKEN, GOOD, KEYLESS)
    with pytest.raises(Refused) as caught:
        load_prompts([one, two], "train", ERROR)
    message = "--prompt_data a.jsonl:2: no key 'prompt'; keys there: q; name the prompt's with --input_key"
    assert str(caught.value) == f"{message} (and 2 more bad rows); --on_bad_row skip leaves them out"


def test_skip_leaves_them_out_and_says_so(file):
    one, two = file("a.jsonl", GOOD, "", KEYLESS, GOOD), file("b.jsonl", BROKEN, GOOD)
    bad = BadRows("--eval_data", skip=True)
    prompts = load_prompts([one, two], "train", SKIP, bad=bad)
    assert [prompt.where for prompt in prompts] == ["a.jsonl:1", "a.jsonl:4", "b.jsonl:2"]
    [line] = bad.summary()
    assert line.startswith("skipped 2 of 5 rows of --eval_data (first: a.jsonl:3: no key 'prompt'; keys there: q;")
    assert line.endswith(")")


def test_a_source_without_a_good_row_is_refused_all_the_same(file):
    one, two = file("a.jsonl", GOOD, KEYLESS), file("b.jsonl", KEYLESS, BROKEN)
    with pytest.raises(Refused) as caught:
        load_prompts([one, two], "train", SKIP)
    assert str(caught.value).startswith("--prompt_data b.jsonl:1: no key 'prompt'")
    assert str(caught.value).endswith("(and 1 more bad rows); no row of this source is good")
    with pytest.raises(Refused, match="b.jsonl:1: .*; no row of this source is good$"):
        load_prompts([two], "train", ERROR)  # to skip them is no way out then


def test_nothing_is_said_where_nothing_is_bad(file):
    bad = BadRows(skip=True)
    load_prompts([file("a.jsonl", GOOD), "reasoning_gym:chain_sum?size=3&test=0"], "train", SKIP, bad=bad)
    assert bad.summary() == [] and bad.read == 4


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none.jsonl", None, "no such file"),
        ("a.json", '[{"prompt": "x"}', "invalid JSON"),
        ("a.csv", 'prompt\n"x\n', "broken CSV"),
        ("a.csv", "question\nx\n", "no key 'prompt'"),
        ("a.jsonl", "\n", "is empty"),
    ],
)
def test_a_fault_of_the_whole_file_is_never_skipped(file, name, text, expected):
    if text is not None:
        file(name, text)
    with pytest.raises(Refused, match=expected):
        load_prompts([file("good.jsonl", GOOD), name], "train", SKIP)
