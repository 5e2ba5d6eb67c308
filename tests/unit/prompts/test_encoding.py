from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRows
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.encoding import encode_prompts
from lightrft.types import Prompt

WORDS = ["<unk>", "<s>", "</s>", "user", "system", "assistant", ":", "one", "two", "three", "."]
BOS, EOS, USER, ASSISTANT, COLON, ONE, TWO, THREE, DOT = (
    WORDS.index(word) for word in ("<s>", "</s>", "user", "assistant", ":", "one", "two", "three", ".")
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'tool' %}"
    "{{ raise_exception('no tools here') }}{% endif %}"
    "{{ m['role'] }} : {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def tokenizer(template=TEMPLATE):
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.chat_template = template
    return made


def prompt(text, where="", role="user"):
    return Prompt(id="id-1", messages=({"role": role, "content": text},), where=where)


def encode(*prompts, template=TEMPLATE, apply=None, limit=20):
    return encode_prompts(prompts, tokenizer(template), apply_chat_template=apply, prompt_max_len=limit)


@pytest.mark.parametrize("apply", [None, True])
def test_the_chat_template_is_used_with_one_bos_and_a_generation_prompt(apply):
    [encoded] = encode(prompt("one two"), apply=apply)
    assert encoded.token_ids == (BOS, USER, COLON, ONE, TWO, ASSISTANT, COLON)
    assert all(type(token) is int for token in encoded.token_ids)


@pytest.mark.parametrize(("template", "apply"), [(TEMPLATE, False), (None, None), (None, False)])
def test_without_the_template_contents_are_joined_and_get_the_tokenizers_own_tokens(template, apply):
    messages = ({"role": "system", "content": "one"}, {"role": "user", "content": "two"})
    [encoded] = encode(Prompt(id="x", messages=messages), template=template, apply=apply)
    assert encoded.token_ids == (BOS, ONE, TWO)


def test_a_template_that_is_asked_for_and_missing_is_refused():
    with pytest.raises(Refused, match="^--apply_chat_template: .* has no chat template; --no-apply_chat_template"):
        encode(prompt("one"), template=None, apply=True)


def test_a_template_that_raises_is_refused_with_the_row_and_the_reason():
    with pytest.raises(Refused, match="^--prompt_data a.jsonl:7: the chat template refuses .*no tools here"):
        encode(prompt("one", where="a.jsonl:7", role="tool"))


def test_long_prompts_are_refused_with_the_first_row_the_count_and_the_remedy():
    rows = [prompt("one"), prompt("one two", "a.jsonl:2"), prompt("one two three", "a.jsonl:3"), prompt("one")]
    with pytest.raises(Refused) as caught:
        encode(*rows, limit=6)
    assert str(caught.value) == (
        "--prompt_data a.jsonl:2: 7 tokens, over --prompt_max_len 6 (1 more are too long); "
        "--prompt_max_len 8 would admit all"
    )


def test_a_prompt_of_exactly_the_limit_is_kept():
    assert len(encode(prompt("one two"), limit=7)) == 1


def test_a_prompt_without_tokens_is_refused_by_its_id_where_no_place_is_known():
    with pytest.raises(Refused, match="prompt id-1: the prompt has no tokens"):
        encode(prompt("one"), template="{{ '' }}")


def test_a_response_is_decoded_without_special_tokens_and_without_moving_spaces():
    assert Encoder(tokenizer()).response((ONE, DOT, EOS)) == "one ."


def test_bad_prompts_are_skipped_where_they_may_be():
    rows = [
        prompt("one", "a.jsonl:1"),
        prompt("one", "a.jsonl:2", role="tool"),
        prompt("one two three", "a.jsonl:3"),
        prompt("two", "a.jsonl:4"),
    ]
    bad = BadRows("--eval_data", skip=True, read=5)
    bad.add(0, "a.jsonl:5", "no key")
    kept = encode_prompts(rows, tokenizer(), apply_chat_template=None, prompt_max_len=6, bad=bad)
    assert [each.where for each in kept] == ["a.jsonl:1", "a.jsonl:4"]
    assert kept == encode(rows[0], rows[3])
    assert [(fault.where, fault.reason.split(":")[0]) for fault in bad.faults] == [
        ("a.jsonl:5", "no key"),
        ("a.jsonl:2", "the chat template refuses these messages"),
        ("a.jsonl:3", "8 tokens, over --prompt_max_len 6"),
    ]
    assert bad.summary() == ["skipped 3 of 5 rows of --eval_data (first: a.jsonl:5: no key)"]


def test_skipping_all_prompts_of_a_source_is_refused():
    rows = [prompt("one"), replace(prompt("one two", "b.jsonl:1"), origin=1)]
    with pytest.raises(Refused, match="^--prompt_data b.jsonl:1: 7 tokens, over --prompt_max_len 6; no row of this"):
        encode_prompts(rows, tokenizer(), apply_chat_template=None, prompt_max_len=6, bad=BadRows(skip=True))


def test_templates_that_refuse_are_counted_over_all_prompts():
    rows = [prompt("one", f"a.jsonl:{line}", role="tool" if line in (2, 5) else "user") for line in range(1, 7)]
    with pytest.raises(Refused, match=r"^--prompt_data a.jsonl:2: the chat template .*no tools here \(and 1 more bad"):
        encode(*rows)


def test_many_prompts_are_encoded_as_each_by_itself(monkeypatch):
    monkeypatch.setattr("lightrft.prompts.encoding.TOGETHER", 3)
    rows = [prompt(" ".join(["one", "two", "three"][: 1 + index % 3]), f"a:{index}") for index in range(8)]
    for template in (TEMPLATE, None):
        alone = [encode(row, template=template)[0] for row in rows]
        assert encode(*rows, template=template) == alone


def test_a_prompt_is_shown_as_the_model_gets_it():
    [encoded] = encode(prompt("one two"))
    assert Encoder(tokenizer()).as_the_model_sees(encoded) == "<s> user : one two assistant :"


def with_row(messages, conversational=True, **columns):
    return Prompt(id="id-1", messages=messages, where="a:1", columns=columns, conversational=conversational)


def text_of(row, **flags):
    [encoded], lines = encoded_with_notices(row, **flags)
    return Encoder(tokenizer()).as_the_model_sees(encoded), lines


def encoded_with_notices(*rows, template=TEMPLATE, apply=None):
    bad = BadRows()
    found = encode_prompts(list(rows), tokenizer(template), apply_chat_template=apply, prompt_max_len=40, bad=bad)
    return found, bad.notices


OPTIONS = (
    "{% if tools %}{% for t in tools %}{{ t.name }} {% endfor %}{% endif %}{% if three %}three {% endif %}" + TEMPLATE
)
TOOLS = [{"name": "one"}, {"name": "two"}]


@pytest.mark.parametrize("conversational", [True, False])
@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"tools": TOOLS}, "one two "),
        ({"tools": '[{"name": "one"}, {"name": "two"}]'}, "one two "),
        ({"tools": ['{"name": "one"}', '{"name": "two"}']}, "one two "),
        ({"tools": {"name": "one"}}, "one "),
        ({"tools": '{"name": "one"}'}, "one "),
        ({"chat_template_kwargs": {"three": True}}, "three "),
        ({"chat_template_kwargs": {"three": "true"}}, "three "),
        ({"chat_template_kwargs": '{"three": "False"}'}, ""),
        ({"chat_template_kwargs": {"three": "false"}}, ""),
        ({"chat_template_kwargs": '{"three": true}'}, "three "),
        ({"tools": None, "chat_template_kwargs": None}, ""),
        ({"tools": "[]", "chat_template_kwargs": "{}"}, ""),
        ({"tools": "", "chat_template_kwargs": ""}, ""),
    ],
)
def test_tools_and_options_of_a_row_reach_the_template_with_a_text_as_with_messages(conversational, columns, expected):
    plain, row = prompt("one"), with_row(({"role": "user", "content": "one"},), conversational, **columns)
    found, lines = encoded_with_notices(plain, row, template=OPTIONS)
    texts = [Encoder(tokenizer()).as_the_model_sees(each) for each in found]
    assert texts == ["<s> user : one assistant :", f"{expected}<s> user : one assistant :"] and not lines


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"tools": "a hammer"}, "'tools' is neither a list of objects nor JSON text of one"),
        ({"tools": {"hammer": "one"}}, "'tools' is neither"),
        ({"tools": ["hammer"]}, "'tools' is neither"),
        ({"chat_template_kwargs": [1]}, "'chat_template_kwargs' is neither an object nor JSON text of one"),
        ({"chat_template_kwargs": "thinking"}, "'chat_template_kwargs' is neither"),
        ({"chat_template_kwargs": {"truncation": True, "max_length": 2}}, "sets 'max_length', which is no option of a"),
    ],
)
def test_tools_and_options_of_another_kind_are_bad_rows(columns, expected):
    with pytest.raises(Refused, match=f"^--prompt_data a:1: .*{expected}"):
        encoded_with_notices(with_row(({"role": "user", "content": "one"},), **columns))


def test_options_that_no_template_reads_are_told():
    row = with_row(({"role": "user", "content": "one"},), False, tools=TOOLS)
    _, lines = encoded_with_notices(row, prompt("two"), apply=False)
    do_nothing = "have tools or chat_template_kwargs, which do nothing without the chat template"
    assert lines == [f"1 of 2 prompts (first: a:1) {do_nothing}"]


def test_a_bos_inside_a_text_is_told_where_no_template_is_used():
    rows = [with_row(({"role": "user", "content": text},), False) for text in ("one", "<s> one", "one <s>")]
    _, lines = encoded_with_notices(*rows, template=None)
    first = "1 of 3 prompts (first: a:1)"
    assert lines == [
        f"{first} begin with <s>: no second one is added",
        f"{first} hold <s> beside the one that they begin with",
    ]


TURNS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)
WHOLE = "<|im_start|> user one <|im_end|> <|im_start|> assistant"


def chatty(template=TURNS):
    made = tokenizer(template)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


@pytest.mark.parametrize("text", [WHOLE, f"<s> {WHOLE}", f"<s>{WHOLE}"])
@pytest.mark.parametrize(
    ("template", "apply", "told"),
    [
        (TURNS, None, "are whole in the chat template already: taken as they are"),
        (TURNS, False, "begin with <s>: no second one is added"),
        (None, None, "begin with <s>: no second one is added"),
    ],
)
def test_a_whole_prompt_gets_no_second_bos_and_no_second_template(text, template, apply, told):
    row, bad = with_row(({"role": "user", "content": text},), False), BadRows()
    [encoded] = encode_prompts([row], chatty(template), apply_chat_template=apply, prompt_max_len=40, bad=bad)
    assert Encoder(chatty()).as_the_model_sees(encoded) == f"<s> {WHOLE}"
    expected = [told] if told.startswith("are whole") or text.startswith("<s>") else []
    assert [line.split(") ", 1)[1][: len(told)] for line in bad.notices] == expected


@pytest.mark.parametrize(
    ("row", "apply"),
    [
        (with_row(({"role": "user", "content": WHOLE},), False), True),
        (with_row(({"role": "user", "content": WHOLE},)), None),
        (with_row(({"role": "user", "content": "one <|im_end|>"},), False), None),
        (with_row(({"role": "system", "content": "two"}, {"role": "user", "content": WHOLE}), False), None),
    ],
)
def test_the_templates_own_tokens_in_a_turn_are_told(row, apply):
    bad = BadRows()
    [encoded] = encode_prompts([row], chatty(), apply_chat_template=apply, prompt_max_len=40, bad=bad)
    shown = Encoder(chatty()).as_the_model_sees(encoded)
    assert row.messages[-1]["content"] in shown and shown.endswith("<|im_end|> <|im_start|> assistant")
    hold = "hold tokens that the chat template writes itself around each turn"
    assert bad.notices == [f"1 of 1 prompts (first: a:1) {hold}"]


@pytest.mark.parametrize(
    ("template", "text", "expected"),
    [
        ("{{ bos_token }}user : {{ messages[0].content }} . assistant :", "user : one . assistant :", True),
        ("{{ bos_token }}user : {{ messages[0].content }} . assistant :", "user : one", False),
        ("{{ messages[0].content }}", "one", False),
    ],
)
def test_a_template_without_special_tokens_is_known_by_both_ends(template, text, expected):
    row = with_row(({"role": "user", "content": text},), False)
    _, lines = encoded_with_notices(row, template=template)
    assert any("whole in the chat template already" in line for line in lines) == expected


VICUNA = (
    "{{ bos_token }}A chat between a person and a machine. {% for m in messages %}{% if m.role == 'user' %}"
    "USER: {{ m.content }} {% else %}ASSISTANT: {{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
QUESTIONS = (
    "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}\nAnswer:{% else %}\n{% endif %}{% endfor %}"
)
OF_A_TEXT = "whole in the chat template already"
ONCE_MORE = "which the chat template writes there once more"


@pytest.mark.parametrize(
    ("template", "text", "told"),
    [
        (VICUNA, "USER: one ASSISTANT:", OF_A_TEXT),
        (VICUNA, "USER: one ASSISTANT: ", OF_A_TEXT),
        (VICUNA, "A chat between a person and a machine. USER: one ASSISTANT:", OF_A_TEXT),
        (VICUNA, "Another beginning.\nUSER: one ASSISTANT:", OF_A_TEXT),
        (VICUNA, "USER: one ASSISTANT: two</s>USER: three ASSISTANT:", OF_A_TEXT),
        (VICUNA, "one ASSISTANT:", f"end in 'ASSISTANT:', {ONCE_MORE}"),
        (VICUNA, "The SUPERUSER: one ASSISTANT:", f"end in 'ASSISTANT:', {ONCE_MORE}"),
        (VICUNA, "one two Answer:", None),
        (VICUNA, "What does USER: mean before ASSISTANT: in a log?", None),
        (QUESTIONS, "one two\nAnswer:", f"end in 'Answer:', {ONCE_MORE}"),
        (QUESTIONS, "one two", None),
        (TEMPLATE, "one two Answer:", None),
        (TURNS, "one two Answer:", None),
        ("{% for m in messages %}[ {{ m.content }} ]{% endfor %}", "[ one, two ] is a list of [ three ]", None),
    ],
)
def test_a_plain_template_is_known_by_its_turns_and_its_end(template, text, told):
    found, lines = encoded_with_notices(with_row(({"role": "user", "content": text},), False), template=template)
    about = [line for line in lines if not line.startswith("the chat template writes no")]
    assert len(about) == (told is not None) and (told or "") in "".join(about)
    direct: Any = tokenizer(template)
    if told == OF_A_TEXT:
        expected = direct(f"<s> {text}", add_special_tokens=False)
    else:
        expected = direct.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
    assert list(found[0].token_ids) == expected["input_ids"]


def test_a_template_that_writes_no_beginning_of_an_answer_is_told_once():
    silent = TEMPLATE.replace("{% if add_generation_prompt %}assistant :{% endif %}", "")
    _, lines = encoded_with_notices(prompt("one"), prompt("two"), template=silent)
    assert lines == ["the chat template writes no 'assistant :' before an answer: the model has to"]
    turn = "{% if m.role == 'user' %}[ {{ m.content }} ] {% else %}{{ m.content }}{% endif %}"
    needs_none = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    assert encoded_with_notices(prompt("one"), template=needs_none)[1] == []


def test_an_answer_that_is_gone_on_with_is_told():
    row = with_row(({"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}))
    text, lines = text_of(row)
    assert text == "<s> user : one assistant : two"
    assert lines == ["1 of 1 prompts (first: a:1) end in an assistant turn, which the model goes on with"]
