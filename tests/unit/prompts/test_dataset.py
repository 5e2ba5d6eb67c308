import json

import pytest

from lightrft.args.groups.data import DataArgs
from lightrft.errors import Refused
from lightrft.prompts.dataset import load_prompts

DATA = DataArgs(prompt_data=())


def write(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    return str(path)


def refusal(spec, data=DATA, split="train"):
    with pytest.raises(Refused) as caught:
        load_prompts([spec], split, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_row_becomes_a_prompt_with_its_reference_source_columns_and_place(tmp_path):
    file = write(tmp_path / "sums.jsonl", {"prompt": "1+1?", "label": 2, "level": "easy"}, "")
    [prompt] = load_prompts([file], "train", DATA)
    assert prompt.messages == ({"role": "user", "content": "1+1?"},)
    assert (prompt.reference, prompt.source, prompt.columns) == (2, "sums", {"label": 2, "level": "easy"})
    assert prompt.where == f"{file}:1"


def test_a_source_column_names_the_source_and_a_label_is_optional(tmp_path):
    [prompt] = load_prompts([write(tmp_path / "a.jsonl", {"prompt": "x", "source": "math"})], "train", DATA)
    assert (prompt.source, prompt.reference) == ("math", None)


def test_other_keys_are_read_where_the_flags_say_so(tmp_path):
    file = write(tmp_path / "a.jsonl", {"q": "x", "a": "y"})
    [prompt] = load_prompts([file], "train", DataArgs(prompt_data=(), input_key="q", label_key="a"))
    assert (prompt.messages[0]["content"], prompt.reference, prompt.columns) == ("x", "y", {"a": "y"})


def test_the_system_prompt_goes_before_rows_without_one_and_leaves_ids_alone(tmp_path):
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "x"}]
    file = write(tmp_path / "a.jsonl", {"prompt": own}, {"prompt": "y"})
    with_system = DataArgs(prompt_data=(), system_prompt="Be short.")
    first, second = load_prompts([file], "train", with_system)
    assert first.messages == tuple(own)
    assert second.messages == ({"role": "system", "content": "Be short."}, {"role": "user", "content": "y"})
    assert [first.id, second.id] == [prompt.id for prompt in load_prompts([file], "train", DATA)]


def test_ids_depend_on_content_not_on_order_and_repeats_get_their_own(tmp_path):
    rows = [{"prompt": "x"}, {"prompt": "y"}, {"prompt": "x"}]
    (tmp_path / "other").mkdir()
    forward = load_prompts([write(tmp_path / "a.jsonl", *rows)], "train", DATA)
    backward = load_prompts([write(tmp_path / "other" / "a.jsonl", *rows[::-1])], "train", DATA)
    assert len({prompt.id for prompt in forward}) == 3
    assert forward[2].id == f"{forward[0].id}-2"
    assert {prompt.id for prompt in forward} == {prompt.id for prompt in backward}


def test_ids_are_unique_across_files_that_share_rows(tmp_path):
    file = write(tmp_path / "a.jsonl", {"prompt": "x"})
    first, second = load_prompts([file, file], "train", DATA)
    assert first.id != second.id


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "one\u2028two"}\n', encoding="utf-8")
    [prompt] = load_prompts([str(tmp_path / "a.jsonl")], "train", DATA)
    assert prompt.messages[0]["content"] == "one\u2028two"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"prompt": "x"', "a.jsonl:2: invalid JSON (Expecting ',' delimiter, column 15)"),
        ('["x"]', "the row is a list"),
        ('{"question": "x", "answer": 1}', "no key 'prompt'; keys there: question, answer; name the prompt's with"),
        ('{"prompt": 5}', "'prompt' is of type int"),
        ('{"prompt": "  "}', "'prompt' is an empty text"),
        ('{"prompt": []}', "'prompt' has no user turn (roles there: none)"),
        ('{"prompt": [{"role": "system", "content": "x"}]}', "no user turn (roles there: system)"),
        ('{"prompt": [{"role": "user"}]}', "'prompt'[0] is not of the form"),
        ('{"prompt": ["x"]}', "'prompt'[0] is not of the form"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path, row, expected):
    message = refusal(write(tmp_path / "a.jsonl", {"prompt": "good"}, row))
    assert message.startswith("--prompt_data ")
    assert "a.jsonl:2: " in message
    assert expected in message


def test_the_first_bad_row_is_named_and_the_others_are_counted(tmp_path):
    message = refusal(write(tmp_path / "a.jsonl", {"x": 1}, {"prompt": "good"}, {"x": 2}, {"x": 3}))
    assert "a.jsonl:1: no key 'prompt'" in message
    assert message.endswith("(and 2 more bad rows); --on_bad_row skip leaves them out")


def test_files_that_are_missing_empty_of_another_type_or_not_text_are_refused(tmp_path):
    assert "no such file" in refusal(str(tmp_path / "none.jsonl"))
    assert "is empty" in refusal(write(tmp_path / "a.jsonl", "", "  "))
    assert ".jsonl, .json, .csv, .parquet files, dataset folders, org/name" in refusal(str(tmp_path / "a.txt"))
    assert "no such file" in refusal(str(tmp_path / "a.parquet"))
    assert "no such file or folder" in refusal(str(tmp_path / "folder"))
    (tmp_path / "b.jsonl").write_bytes(b'{"prompt": "\xff"}\n')
    assert "not UTF-8" in refusal(str(tmp_path / "b.jsonl"))
    (tmp_path / "c.jsonl").mkdir()
    assert "cannot be read" in refusal(str(tmp_path / "c.jsonl"))


def test_the_flag_that_was_used_is_the_flag_that_is_named():
    with pytest.raises(Refused, match="^--eval_data names no data"):
        load_prompts([], "test", DATA, flag="--eval_data")


def test_ids_are_those_of_earlier_versions(tmp_path, monkeypatch):
    """Written down from a run of version 0.1: a checkpoint of then goes on with the same samples now (but for messages
    with a null in a `.jsonl`, which is no key any more, as it was none in tables)."""
    monkeypatch.chdir(tmp_path)
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "x"}]
    rows = [{"prompt": "1+1?", "label": 2}, {"prompt": own, "source": "math"}, {"prompt": "1+1?", "label": 3}]
    write(tmp_path / "a.jsonl", *rows)
    expected = ["57fbabd5167f3b37", "d69b1ecce8b8477d", "57fbabd5167f3b37-2"]
    dressed = DataArgs(prompt_data=(), system_prompt="Be short.", input_template="Q: {prompt}")
    for data in (DATA, dressed):
        assert [prompt.id for prompt in load_prompts(["a.jsonl"], "train", data)] == expected


def contents(tmp_path, template, *rows):
    file = write(tmp_path / "t.jsonl", *({"prompt": row} for row in rows))
    prompts = load_prompts([file], "train", DataArgs(prompt_data=(), input_template=template))
    return [[message["content"] for message in prompt.messages] for prompt in prompts]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Q: {}\nA:", "Q: 1+{}\nA:"),
        ("Put it in \\boxed{}. {prompt}", "Put it in \\boxed{}. 1+{}"),
        ("{prompt}, that is {prompt}", "1+{}, that is 1+{}"),
        ("{x} {} {", "{x} 1+{} {"),
    ],
)
def test_the_template_goes_around_the_prompt_and_all_other_braces_stay(tmp_path, template, expected):
    assert contents(tmp_path, template, "1+{}") == [[expected]]


def test_the_template_goes_around_the_last_user_turn_of_a_chat_and_nothing_else(tmp_path):
    roles = ("system", "user", "assistant", "user", "assistant")
    chat = [{"role": role, "content": str(index)} for index, role in enumerate(roles)]
    assert contents(tmp_path, "<{}>", chat) == [["0", "1", "2", "<3>", "4"]]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Solve it.", "--input_template 'Solve it.': the prompt has no place in it; write {prompt} where the prompt"),
        ("{} and {}", "--input_template '{} and {}': {} stands there 2 times; write {prompt} where the prompt goes"),
        ("{question}", "the prompt has no place in it"),
    ],
)
def test_a_template_without_a_place_for_the_prompt_is_refused(tmp_path, template, expected):
    file = write(tmp_path / "a.jsonl", {"prompt": "x"})
    assert expected in refusal(file, DataArgs(prompt_data=(), input_template=template))


def test_prompts_know_which_of_the_sources_they_are_from(tmp_path):
    one, two = (
        write(tmp_path / "a.jsonl", {"prompt": "x"}),
        write(tmp_path / "b.jsonl", {"prompt": "y"}, {"prompt": "z"}),
    )
    prompts = load_prompts([one, "reasoning_gym:chain_sum?size=3&test=0", two], "train", DATA)
    assert [prompt.origin for prompt in prompts] == [0, 1, 1, 1, 2, 2]
