"""Tags that a chat template writes into the prompt, and tags that are special tokens, with a tokenizer of bytes."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightrft.prompts.encoder import Encoder
from lightrft.prompts.encoding import encode_prompts
from lightrft.rewards.rules import RuleReward
from lightrft.types import Prompt, Rollout

TURN = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
ASK = "{% if add_generation_prompt %}[assistant]{{ 'OPENING' }}{% endif %}"
GOOD = "<think>a</think><answer>5</answer>"


def tokenizer(opening="", special=()):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: id for id, letter in enumerate(["<end>", *alphabet])}, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ("<end>", *special)])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>")
    made.chat_template = TURN + ASK.replace("OPENING", opening)
    return made


def encoded(opening, *turns):
    messages = tuple({"role": role, "content": text} for role, text in turns or (("user", "2 + 3?"),))
    prompt = Prompt(id="x", messages=messages, reference="5", conversational=True)
    [found] = encode_prompts([prompt], tokenizer(opening), apply_chat_template=None, prompt_max_len=200)
    return found


def judged(rule, prompt, response):
    made = Rollout(prompt, 0, prompt.token_ids, (1,), response, (1,), (-1.0,), "stop", policy_version=0)
    return RuleReward(rule).score([made])[0].total


@pytest.mark.parametrize(
    ("opening", "good", "bad"),
    [
        ("", [GOOD], ["a</think><answer>5</answer>", "<answer>5</answer>"]),
        ("<think>", ["a</think><answer>5</answer>"], [GOOD, "<answer>5</answer>", "5"]),
        (r"<think>\n", ["a</think>\n<answer>5</answer>"], [GOOD]),
        (r"<think>\n\n</think>\n\n", ["<answer>5</answer>", GOOD], ["a</think><answer>5</answer>", "5"]),
        (r"<think>\n\n</think>\n<answer>", ["5</answer>"], ["<answer>5</answer>"]),
    ],
)
def test_the_format_is_that_of_the_response_with_what_the_template_began(opening, good, bad):
    prompt = encoded(opening)
    assert [judged("format", prompt, text) for text in good] == [1.0] * len(good)
    assert [judged("format", prompt, text) for text in bad] == [0.0] * len(bad)


def test_thoughts_that_the_template_began_are_no_answer():
    prompt = encoded(r"<think>\n")
    for rule in ("last_number", "exact", "math"):
        assert judged(rule, prompt, "so 4</think>5") == 1.0
        assert judged(rule, prompt, "5") == 0.0  # still thinking
    assert judged("exact", encoded("<think></think><answer>"), "5</answer>") == 1.0


def test_a_turn_that_is_gone_on_with_has_begun_the_response():
    prompt = encoded("", ("user", "2 + 3?"), ("assistant", "<think>I add: "))
    assert prompt.opening == "<think>"
    assert judged("format", prompt, "5.</think><answer>5</answer>") == 1.0
    assert encoded("", ("user", "2 + 3?"), ("assistant", "It is ")).opening == ""


def test_tags_of_which_the_prompt_only_speaks_have_begun_nothing():
    assert encoded("", ("user", "Think in <think></think>.")).opening == ""
    text = Prompt(id="x", messages=({"role": "user", "content": "Answer in <think></think>"},), reference="5")
    [prompt] = encode_prompts([text], tokenizer(), apply_chat_template=False, prompt_max_len=200)
    assert judged("format", prompt, GOOD) == 1.0
    assert judged("last_number", prompt, GOOD) == 1.0


def test_tags_that_are_special_tokens_are_seen_by_rewards():
    made = tokenizer(special=("<think>", "</think>"))
    ids = made(GOOD + "<end>", add_special_tokens=False)["input_ids"]
    assert made.decode(ids, skip_special_tokens=True) == "a<answer>5</answer>"
    assert Encoder(made).response(ids) == GOOD
    assert Encoder(tokenizer()).response(tokenizer()(GOOD + "<end>")["input_ids"]) == GOOD
