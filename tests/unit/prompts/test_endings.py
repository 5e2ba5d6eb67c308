"""A prompt that is to be gone on with does not end in an end token that nobody typed."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightrft.prompts.bad_rows import BadRows
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.encoding import encode_prompts
from lightrft.prompts.endings import unclosed
from lightrft.types import Prompt

WORDS = ["<unk>", "<s>", "</s>", "<sep>", "user", "assistant", "one", "two"]
S, END, SEP, ONE, TWO = (WORDS.index(word) for word in ("<s>", "</s>", "<sep>", "one", "two"))
OFF = "the {} sets the end token '{}' behind a prompt: taken off, an answer goes there"
STAYS = "{} prompts (first: a:1) end in an end token and are left so: a model may take them for finished"
LOOP = "{{ bos_token }}{% for m in messages %} {{ m.role }} {{ m.content }}{% endfor %}"
AT_THE_END = LOOP + "{% if add_generation_prompt %} assistant{% endif %} </s>"
EACH_TURN = "{{ bos_token }}{% for m in messages %} {{ m.content }} </s>{% endfor %}"


def tokenizer(added="<s> $A </s>", template=None, **names):
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(word, WORDS.index(word)) for word in WORDS[1:4]]
    inner.post_processor = processors.TemplateProcessing(single=added, special_tokens=special)
    names = {"bos_token": "<s>", "eos_token": "</s>", **names}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **names)
    made.chat_template = template
    return made


def made_of(tokenizer, *texts, ends=(), answer=False):
    """The prompts as the model sees them, and what is told."""
    role = "assistant" if answer else "user"
    prompts = [
        Prompt(id=str(i), messages=({"role": role, "content": text},), where=f"a:{i}", conversational=answer)
        for i, text in enumerate(texts, 1)
    ]
    bad = BadRows()
    found = encode_prompts(prompts, tokenizer, apply_chat_template=None, prompt_max_len=20, bad=bad, ends=ends)
    return [Encoder(tokenizer).as_the_model_sees(prompt) for prompt in found], bad.notices


def test_an_end_token_that_the_tokenizer_adds_is_taken_off_and_bos_stays():
    off = OFF.format("tokenizer", "</s>")
    assert made_of(tokenizer(), "one", "one two") == (["<s> one", "<s> one two"], [off])
    assert made_of(tokenizer("<s> $A </s> </s>"), "one") == (["<s> one"], [off])
    assert made_of(tokenizer("$A </s>"), "one") == (["one"], [off])
    assert made_of(tokenizer("<s> $A"), "one") == (["<s> one"], [])


def test_an_end_token_that_was_typed_stays_and_is_told():
    assert made_of(tokenizer("<s> $A"), "one </s>", "two") == (["<s> one </s>", "<s> two"], [STAYS.format("1 of 2")])
    shown, told = made_of(tokenizer(), "one </s>", "two")
    assert shown == ["<s> one </s>", "<s> two"]
    assert told == [OFF.format("tokenizer", "</s>"), STAYS.format("1 of 2")]


def test_one_token_may_begin_and_end_a_text():
    both = tokenizer("<s> $A <s>", eos_token="<s>")
    assert made_of(both, "one") == (["<s> one"], [OFF.format("tokenizer", "<s>")])


def test_other_names_of_the_end_are_known():
    """The separator of a tokenizer; an end token that only the model's configuration names."""
    off = OFF.format("tokenizer", "<sep>")
    assert made_of(tokenizer("<s> $A <sep>", sep_token="<sep>"), "one") == (["<s> one"], [off])
    assert made_of(tokenizer("<s> $A <sep>"), "one", ends=[SEP]) == (["<s> one"], [off])
    assert made_of(tokenizer("<s> $A <sep>"), "one") == (["<s> one <sep>"], []), "it is no end of anything"


def test_an_end_token_behind_the_whole_chat_is_taken_off():
    for added in ("<s> $A", "<s> $A </s>"):
        closing = tokenizer(added, AT_THE_END)
        assert made_of(closing, "one", "two") == (
            ["<s> user one assistant", "<s> user two assistant"],
            [OFF.format("chat template", "</s>")],
        )
    assert made_of(closing, "one </s>")[0] == ["<s> user one </s> assistant"]


def test_a_whole_text_is_known_by_the_template_without_its_last_token():
    shown, told = made_of(tokenizer(template=AT_THE_END), "user one assistant", "one")
    assert shown == ["<s> user one assistant", "<s> user one assistant"]
    assert "1 of 2 prompts (first: a:1) are whole in the chat template already" in told[0]


def test_an_end_token_behind_each_turn_stays_for_answers_come_behind_it():
    """As in DialoGPT: the model has learned to answer there."""
    assert made_of(tokenizer(template=EACH_TURN), "one") == (["<s> one </s>"], [STAYS.format("1 of 1")])


def test_an_answer_that_is_gone_on_with_keeps_what_was_typed():
    shown, told = made_of(tokenizer(template=AT_THE_END), "one </s>", answer=True)
    assert shown == ["<s> assistant one </s>"]
    assert told[-1] == STAYS.format("1 of 1")


@pytest.mark.parametrize(
    ("ids", "text", "expected"),
    [
        ([S, ONE, END], [ONE], [S, ONE]),
        ([S, ONE, END, END], [ONE, END], [S, ONE, END]),
        ([S, ONE, END], [ONE, END], [S, ONE, END]),
        ([S, ONE, TWO], [ONE], [S, ONE, TWO]),
        ([S, ONE, TWO, END], [ONE], [S, ONE, TWO, END]),
        ([S, TWO, END], [ONE], [S, TWO, END]),
        ([], [], []),
    ],
)
def test_only_end_tokens_behind_the_text_are_taken_off(ids, text, expected):
    assert unclosed(ids, text, {END}) == expected
