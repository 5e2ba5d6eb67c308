"""The same row in every format, and chats in the forms that other libraries write."""

import json

import datasets
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from lightrft.args.groups.data import DataArgs
from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.dataset import load_prompts
from lightrft.prompts.rows import prompt_of

ASK = {"role": "user", "content": "What is 2?"}


def tool(name, **properties):
    parameters = {"type": "object", "properties": properties}
    return [{"type": "function", "function": {"name": name, "parameters": parameters}}]


def said(role, text, **more):
    """Parts, since a table has one type of content."""
    return {"role": role, "content": [{"type": "text", "text": text}], **more}


def called(name, **arguments):
    call = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return [said("user", "What is 2?"), said("assistant", "", tool_calls=[call]), said("tool", "3")]


ROWS = [
    {
        "prompt": called("add", a=1, b=[1, 2]),
        "tools": tool("add", a={"type": "number"}),
        "chat_template_kwargs": {"other": 1},
        "reward_model": {"ground_truth": "2", "style": "rule"},
        "extra_info": {"index": 0, "deep": {"left": [{"x": 1.5}, {"y": "z"}]}},
    },
    {
        "prompt": called("find", query="x", where={"city": "Rome"}),
        "tools": tool("find", query={"type": "string", "enum": ["x", "y"]}),
        "chat_template_kwargs": {"enable_thinking": False},
        "reward_model": {"ground_truth": "3"},
        "extra_info": {"split": "train", "deep": {"right": True}},
    },
    {
        "prompt": [said("user", "What is 2?", name="bob")],
        "tools": tool("none"),
        "chat_template_kwargs": {"enable_thinking": True},
        "reward_model": {"ground_truth": "4"},
        "extra_info": {"index": 2},
    },
]


def saved(path, **formatted):
    dataset = datasets.Dataset.from_list(ROWS)
    (dataset.with_format(**formatted) if formatted else dataset).save_to_disk(path)


WRITERS = {
    "json": lambda path: path.write_text(json.dumps(ROWS)),
    "parquet": lambda path: parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
    "pandas.parquet": lambda path: pandas.DataFrame(ROWS).to_parquet(path),
    "folder": saved,
    "numpy": lambda path: saved(path, type="numpy"),
    "torch": lambda path: saved(path, type="torch", columns=["reward_model"]),
}


def meaning(path):
    prompts = load_prompts([str(path)], "train", DataArgs(prompt_data=()))
    return [(prompt.messages, prompt.reference, prompt.columns, prompt.id) for prompt in prompts]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_row_means_the_same_in_every_format(tmp_path, kind):
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = (
        tmp_path / kind / (f"rows.{kind.split('.')[-1]}" if kind in ("json", "parquet", "pandas.parquet") else "rows")
    )
    path.parent.mkdir()
    WRITERS[kind](path)
    assert meaning(path) == meaning(lines)
    columns = [{key: value for key, value in row.items() if key != "prompt"} for row in ROWS]
    assert [each[2] for each in meaning(lines)] == columns
    calls = [turn["tool_calls"][0]["function"]["arguments"] for each in meaning(path)[:2] for turn in each[0][1:2]]
    assert [json.dumps(each) for each in calls] == [
        '{"a": 1, "b": [1, 2]}',
        '{"query": "x", "where": {"city": "Rome"}}',
    ]


def test_a_map_of_arrow_is_an_object(tmp_path):
    options = pyarrow.array([[("enable_thinking", False)]], type=pyarrow.map_(pyarrow.string(), pyarrow.bool_()))
    parquet.write_table(pyarrow.table({"prompt": ["x"], "chat_template_kwargs": options}), tmp_path / "a.parquet")
    assert meaning(tmp_path / "a.parquet")[0][2] == {"chat_template_kwargs": {"enable_thinking": False}}


def test_nesting_that_python_cannot_follow_is_a_bad_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "x", "a": ' + "[" * 900 + "]" * 900 + '}\n{"prompt": "y"}\n')
    with pytest.raises(Refused, match="a.jsonl:1: it is nested too deeply; --on_bad_row skip leaves it out"):
        meaning(path)


def understood(row, **flags):
    return prompt_of(row, "file:1", "file", DataArgs(prompt_data=(), **flags), origin=0)


def test_a_null_inside_an_object_is_no_key_whatever_the_format_and_stays_in_a_list_and_in_json_text():
    schema = '{"properties": {"a": {"default": null}}}'
    row = {"prompt": "x", "info": {"a": None, "b": [None, {"c": None}]}, "note": None, "tools": schema}
    assert understood(row).columns == {"info": {"b": [None, {}]}, "note": None, "tools": schema}


@pytest.mark.parametrize("written", [json.dumps, str], ids=["json", "python"])
def test_a_chat_that_was_written_into_a_text_is_read(written):
    prompt = understood({"prompt": written([{"role": "system", "content": "It's short."}, ASK])})
    assert prompt.conversational and prompt.messages == ({"role": "system", "content": "It's short."}, ASK)


@pytest.mark.parametrize("written", [dict, json.dumps, lambda chat: json.dumps(chat, indent=4), str])
@pytest.mark.parametrize(
    "chat",
    [
        ASK,
        {"messages": [ASK]},
        {"conversations": [{"from": "human", "value": "What is 2?"}]},
        {"role": ["user"], "content": ["What is 2?"]},
    ],
)
def test_an_object_that_holds_a_chat_is_that_chat_also_in_a_text(written, chat):
    prompt = understood({"prompt": written(chat)})
    assert prompt.conversational and prompt.messages == (ASK,)


@pytest.mark.parametrize("written", [dict, json.dumps], ids=["object", "text"])
@pytest.mark.parametrize("content", [{"content": None}, {}, {"content": ""}])
def test_openais_older_calls_are_the_newer_ones(written, content):
    call = {"name": "add", "arguments": json.dumps({"a": 1})}
    turns = [
        {"role": "assistant", **content, "function_call": written(call)},
        {"role": "function", "name": "add", "content": "3"},
    ]
    assert understood({"prompt": [ASK, *turns]}).messages[1:] == (
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "name": "add", "content": "3"},
    )


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_a_turn_of_thoughts_alone_keeps_them(name):
    turn = {"role": "assistant", "content": None, name: "It is even."}
    assert understood({"prompt": [ASK, turn, ASK]}).messages == (ASK, {**turn, "content": ""}, ASK)


def test_sharegpts_turns_are_read():
    turns = [("system", "s"), ("human", "What is 2?"), ("gpt", "2"), ("observation", "3"), ("human", "And 3?")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    roles = [(turn["role"], turn["content"]) for turn in understood(row, input_key="conversations").messages]
    assert roles == [("system", "s"), ("user", "What is 2?"), ("assistant", "2"), ("tool", "3"), ("user", "And 3?")]


@pytest.mark.parametrize(
    "prompt",
    [ASK, {"role": ["user"], "content": ["What is 2?"], "name": [None]}, {"from": "human", "value": "What is 2?"}],
)
def test_a_message_by_itself_and_a_chat_in_columns_are_chats(prompt):
    assert understood({"prompt": prompt}).messages == (ASK,)


@pytest.mark.parametrize("content", [{"content": None}, {}, {"content": ""}])
@pytest.mark.parametrize("written", [dict, json.dumps], ids=["object", "text"])
def test_a_turn_of_calls_says_nothing_and_its_arguments_are_an_object(content, written):
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": written({"a": 1})}}
    turn = {"role": "assistant", **content, "tool_calls": [call]}
    plain = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    for calls in ([call], json.dumps([call])):
        prompt = understood({"prompt": [ASK, {**turn, "tool_calls": calls}, {"role": "tool", "content": "3"}]})
        assert prompt.messages[1] == {"role": "assistant", "content": "", "tool_calls": [plain]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": '[{"role": "user", "content": "x"'}, "'prompt' begins as a list of messages in a text"),
        ({"prompt": {"messages": []}}, "'prompt' is of type dict; a text or a list of chat messages works"),
        (
            {"prompt": {"messages": [ASK], "tools": []}},
            "'prompt' holds 'tools' beside its messages; give that a column",
        ),
        ({"prompt": json.dumps({"id": 1, "messages": [ASK]})}, "'prompt' holds 'id' beside its messages"),
        ({"prompt": '{"messages": [{"role": "user"'}, "'prompt' begins as a list of messages in a text"),
        (
            {"prompt": [ASK, {"role": "assistant", "function_call": "add"}]},
            "'prompt'[1] has a function_call that is no",
        ),
        ({"prompt": [ASK, {"role": "assistant", "function_call": {"name": "add"}}]}, "'prompt' ends in a tool call"),
        ({"prompt": {"role": ["user"], "content": []}}, "'prompt'[0] is not of the form"),
        ({"prompt": [ASK, {"role": "assistant"}]}, "'prompt'[1] is not of the form"),
        ({"prompt": [ASK, {"role": "assistant", "tool_calls": "add(1)"}]}, "'prompt'[1] has tool_calls that are no"),
        ({"prompt": called("add", a=1)[:2]}, "'prompt' ends in a tool call; add the turn of role tool"),
        ({"prompt": [{"from": "wizard", "value": "x"}, ASK]}, "has a turn of role 'wizard'"),
        ({"prompt": "half \ud83d"}, r"'prompt' holds '\ud83d', which is half of a character"),
        ({"prompt": "x", "label": ["\udc00"]}, r"'label' holds '\udc00'"),
        ({"prompt": "x", "info": {"\ud800": 1}}, r"'info' holds '\ud800'"),
        ({"prompt": "x", "\ud800": 1}, r"a key '\ud800' holds '\ud800'"),
    ],
)
def test_what_cannot_be_read_is_a_bad_row(row, expected):
    with pytest.raises(BadRow) as caught:
        understood(row)
    assert expected in str(caught.value) and str(caught.value).isascii() and "\n" not in str(caught.value)


def test_ordinary_brackets_and_whole_characters_are_texts():
    for text in (
        '{"role": "admin"}',
        '{"messages": ["x"], "n": 2}',
        '{"role": who',
        "{x} is",
        "[1, 2] is a list",
        '[{"x": 1}]',
        "[role]",
        "\U0001f600 é",
        '"[{"',
    ):
        prompt = understood({"prompt": text})
        assert prompt.messages == ({"role": "user", "content": text},) and not prompt.conversational
