"""A row as it stands in other people's files: TRL's, verl's, and with other columns than ours."""

import pytest

from lightrft.args.groups.data import DataArgs
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.rows import prompt_of


def understood(row, **flags):
    return prompt_of(row, "file:1", "file", DataArgs(prompt_data=(), **flags), origin=0)


def fault(row, **flags):
    with pytest.raises(BadRow) as caught:
        understood(row, **flags)
    return str(caught.value)


CHAT = [{"role": "user", "content": "What is 2 + 3?"}]
VERL = {
    "data_source": "openai/gsm8k",
    "prompt": CHAT,
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"split": "train", "index": 0},
}


def test_a_text_is_one_user_turn_and_not_conversational():
    prompt = understood({"prompt": "hi", "label": "x", "level": 3})
    assert prompt.messages == ({"role": "user", "content": "hi"},)
    assert not prompt.conversational
    assert prompt.columns == {"label": "x", "level": 3}


def test_trl_messages_are_conversational_and_other_columns_are_kept():
    prompt = understood({"prompt": CHAT, "solution": "5", "chat_template_kwargs": {"x": 1}})
    assert prompt.conversational
    assert prompt.messages == tuple(CHAT)
    assert prompt.columns == {"solution": "5", "chat_template_kwargs": {"x": 1}}
    assert prompt.reference is None


def test_text_parts_are_joined_and_the_rest_of_the_message_is_kept():
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 3?", "image": None}]
    prompt = understood({"prompt": [{"role": "user", "name": "bob", "content": parts}]})
    assert prompt.messages == ({"role": "user", "name": "bob", "content": "What is 2 + 3?"},)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "audio"}, "'prompt'[1] holds a part of type audio"),
        ({"type": "text"}, 'holds a part of type text; {"type": "text", "text": "..."}, image and video work'),
        ({"type": "number", "text": "5"}, "holds a part of type number"),
        ("5", "holds a part of type str"),
    ],
)
def test_other_parts_are_bad_rows(part, expected):
    assert expected in fault({"prompt": [*CHAT, {"role": "user", "content": [part]}]})


def test_verl_rows_are_understood_as_they_are():
    prompt = understood(VERL)
    assert (prompt.reference, prompt.source, prompt.conversational) == ("5", "openai/gsm8k", True)
    assert prompt.columns == {name: value for name, value in VERL.items() if name != "prompt"}


@pytest.mark.parametrize(
    ("row", "flags", "reference"),
    [
        ({"label": "7", "reward_model": {"ground_truth": "5"}}, {}, "5"),
        ({"label": "7", "reward_model": {"style": "rule"}}, {}, "7"),
        ({"label": None, "reward_model": {"ground_truth": "5"}}, {}, "5"),
        ({"label": 0, "reward_model": {}}, {}, 0),
        ({"reward_model": "rule"}, {}, None),
        ({"reward_model": {"style": "rule"}}, {}, None),
        ({"answer": "9", "reward_model": {"ground_truth": "5"}}, {"label_key": "answer"}, "9"),
        ({"label": "good", "solution": "9"}, {"reference_key": "solution"}, "9"),
    ],
)
def test_where_the_reference_comes_from(row, flags, reference):
    prompt = understood({"prompt": "x", **row}, **flags)
    assert prompt.reference == reference
    assert prompt.columns == row


@pytest.mark.parametrize(
    ("row", "flags", "source"),
    [
        ({}, {}, "file"),
        ({"data_source": "b"}, {}, "b"),
        ({"data_source": "b", "source": "a"}, {}, "b"),
        ({"data_source": None, "source": "a"}, {}, "a"),
        ({"data_source": "b", "source": "a", "kind": 3}, {"source_key": "kind"}, "3"),
    ],
)
def test_where_the_source_comes_from(row, flags, source):
    assert understood({"prompt": "x", **row}, **flags).source == source


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([("user", "   ")], "has no user turn with text"),
        ([("system", "x"), ("user", "")], "has no user turn with text"),
        ([("wizard", "x"), ("user", "y")], "has a turn of role 'wizard'"),
        ([("user", "y"), ("system", "x")], "ends in a system turn (roles there: user, system)"),
    ],
)
def test_chats_that_ask_for_nothing_are_bad_rows(turns, expected):
    assert expected in fault({"prompt": [{"role": role, "content": content} for role, content in turns]})


@pytest.mark.parametrize("flag", ["reference_key", "source_key"])
def test_a_column_that_was_asked_for_is_needed_in_every_row(flag):
    message = f"the column of --{flag} kind"
    assert fault({"prompt": "x", "label": 1}, **{flag: "kind"}) == f"{message} is not there; keys there: prompt, label"
    assert fault({"prompt": "x", "kind": None}, **{flag: "kind"}).startswith(f"{message} is empty")
    assert understood({"prompt": "x", "kind": 0}, **{flag: "kind"})


def test_an_empty_cell_is_not_a_prompt():
    assert fault({"prompt": None}) == "'prompt' is empty"
