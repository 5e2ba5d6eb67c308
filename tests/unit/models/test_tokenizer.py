"""The ids of tokenizer.json as shipped, whatever transformers thinks of the model's type; or one line."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.tokenizer import load_tokenizer

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<|im_end|>"]
BOS_EOS = {"<bos>": 1, "<eos>": 2}
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ["What is 2023 + 650841823?", "3 + 5 = ", "It's  ÉTÉ\n\n<|im_end|> x", "日本 ok"]


def numbered(tokens):
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def byte_bpe(pattern, digits=True):
    pairs = [(a, b) for a in "0123456789" for b in "0123456789"] if digits else []
    made = Tokenizer(models.BPE(numbered([*SPECIAL, *BYTES, *(a + b for a, b in pairs)]), pairs))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    return made


def with_bos():
    made = byte_bpe(r"\p{N}{1,3}")
    made.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=list(BOS_EOS.items()))
    return made


def characters():
    made = Tokenizer(models.WordLevel(numbered([*SPECIAL, *"0123456789+="]), unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return made


def word_pieces():
    made = Tokenizer(
        models.WordPiece(numbered([*SPECIAL, *LETTERS, *"0123456789", "##s", "##t", "is"]), unk_token="<unk>")
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def unigram():
    pieces = [*SPECIAL, *(f"\u2581{c}" for c in "abcwix0123456789"), *LETTERS, *"0123456789+=? "]
    made = Tokenizer(models.Unigram([(piece, -1.0) for piece in dict.fromkeys(pieces)], unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made


MADE = {
    "digits in threes": lambda: byte_bpe(r"\p{N}{1,3}"),
    "single digits": lambda: byte_bpe(r"\p{N}"),
    "bos and eos": with_bos,
    "characters": characters,
    "word pieces": word_pieces,
    "unigram": unigram,
}


@pytest.fixture
def folder(tmp_path):
    """(model type, kind of tokenizer, more of tokenizer_config.json) -> a model folder without weights."""

    def make(model_type, kind, **settings):
        made = MADE[kind]()
        made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
        made.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", **settings}))
        return tmp_path

    return make


def load(folder):
    return load_tokenizer(ModelArgs(pretrain=str(folder)))


def refusal(folder):
    with pytest.raises(Refused) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"--pretrain {folder}: ")
    return message


@pytest.mark.parametrize("named", [None, "PreTrainedTokenizerFast", "GPT2Tokenizer", "LlamaTokenizerFast"])
@pytest.mark.parametrize("model_type", ["qwen2", "llama", "gpt2", "gemma2", "bert", "mistral", "phi3", "no_such_type"])
def test_the_ids_are_those_of_tokenizer_json(folder, model_type, named):
    for kind in MADE:
        path = folder(model_type, kind, **({"tokenizer_class": named} if named else {}))
        shipped = Tokenizer.from_file(str(path / "tokenizer.json"))
        found = load(path)
        for text in TEXTS:
            assert found(text).input_ids == shipped.encode(text).ids, kind
            assert found(text, add_special_tokens=False).input_ids == shipped.encode(text, add_special_tokens=False).ids
        assert found.get_vocab() == shipped.get_vocab(), "no token is invented"
        assert found.eos_token == "<|im_end|>"


def test_special_tokens_templates_and_added_tokens_of_the_configuration_are_kept(folder):
    path = folder(
        "qwen2", "characters", bos_token="<bos>", extra_special_tokens=["<tool>"], chat_template="{{bos_token}}"
    )
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    (path / "chat_template.jinja").write_text("{{ bos_token }}hello")
    found = load(path)
    assert (found.bos_token_id, found.eos_token_id, found.pad_token_id) == (1, 4, None), "padding is not made up"
    assert found.chat_template == {"default": "{{ bos_token }}hello", "tool_use": "tools"}
    assert found("3<tool>").input_ids == [8, len(found) - 1]


def test_a_configuration_that_makes_other_ids_is_refused(folder):
    """Both are shipped and they differ: only the user can say which the model was trained with."""
    token = {"content": "<|im_end|>", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}
    path = folder("llama", "single digits", added_tokens_decoder={"4": {**token, "special": True}})
    assert "different ids for" in refusal(path) and "make tokenizer_config.json agree" in refusal(path)


@pytest.mark.parametrize(
    "model_type", ["gemma2", "qwen2", "llama", "gpt2", "bert", "mamba", "phi3", "mistral", "qwen3_5"]
)
def test_a_folder_without_a_tokenizer_says_so(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    assert "it has no tokenizer; copy tokenizer.json" in refusal(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "chat_template.jinja").write_text("hello")
    assert "it has no tokenizer; copy tokenizer.json" in refusal(tmp_path)


def test_a_vocabulary_of_another_type_is_none(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    assert "it has no tokenizer" in refusal(tmp_path)


def test_a_vocabulary_and_merges_are_read_together(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (tmp_path / "vocab.json").write_text(json.dumps(numbered([*BYTES, "12", "<|endoftext|>"])))
    assert "its tokenizer has vocab.json and no merges.txt" in refusal(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n1 2\n")
    assert load(tmp_path).tokenize("12a") in (["12", "a"], ["1", "2", "a"])


@pytest.mark.parametrize("text", ["", "{}", '{"version": "1.0"', '{"version": "1.0", "model": {"type": "Other"}}'])
def test_a_damaged_tokenizer_is_refused_in_one_line(folder, text):
    path = folder("qwen2", "characters")
    (path / "tokenizer.json").write_text(text)
    assert "the tokenizer cannot be loaded" in refusal(path)


def test_a_tokenizer_with_code_of_its_own_needs_leave(folder):
    path = folder("qwen2", "characters", auto_map={"AutoTokenizer": ["own.Own", None]})
    (path / "own.py").write_text(
        "from transformers import TokenizersBackend\nclass Own(TokenizersBackend):\n    mine = 7\n"
    )
    assert load_tokenizer(ModelArgs(pretrain=str(path), trust_remote_code=True)).mine == 7
    assert not hasattr(load(path), "mine"), "without leave, the ids are those of tokenizer.json"
    (path / "tokenizer.json").unlink()
    (path / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    assert "add --trust_remote_code" in refusal(path)


def test_a_name_of_the_hub_is_read_as_a_folder_is(folder, tmp_path):
    path = folder("qwen2", "digits in threes")
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(path / file, snapshot / file)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    args = ModelArgs(pretrain="org/name", cache_dir=str(tmp_path / "hub"))
    shipped = Tokenizer.from_file(str(path / "tokenizer.json"))
    assert load_tokenizer(args)(TEXTS[0]).input_ids == shipped.encode(TEXTS[0]).ids
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(Refused, match="--pretrain org/name: it has no tokenizer"):
        load_tokenizer(args)
