"""What is no model to train here says what it is, before any weight is read."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.given import INDEX, weight_files
from lightrft.models.load import load_model
from lightrft.models.suitable import check_model, check_tokens, dead_ends, end_token_ids
from lightrft.models.tokenizer import load_tokenizer
from lightrft.types import Prompt


def arguments(folder, **more) -> ModelArgs:
    return ModelArgs(pretrain=str(folder), prompt_max_len=8, max_new_tokens=8, **more)


def refusal(folder, call=check_model, *rest, **more):
    with pytest.raises(Refused) as caught:
        call(arguments(folder), *rest, **more)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"--pretrain {folder}: ")
    return message


@pytest.fixture
def model_folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder / "model", tmp_path / "model")


def settings(folder, file="config.json", **changes):
    """A JSON file of the folder with other entries; None takes one out."""
    path = folder / file
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def test_a_causal_language_model_is_taken(model_folder):
    check_model(arguments(model_folder))
    settings(model_folder, architectures=["Qwen2Model"])
    check_model(arguments(model_folder))
    settings(model_folder, architectures=None)
    check_model(arguments(model_folder))
    settings(model_folder, model_type="bert", is_decoder=True)
    check_model(arguments(model_folder))
    settings(model_folder, model_type="gpt_neox", is_decoder=None)
    check_model(arguments(model_folder))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "it is a BertForMaskedLM"),
        ({"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}, "it is a RobertaForMaskedLM"),
        ({"model_type": "bert", "architectures": ["BertForPreTraining"]}, "it is a BertForPreTraining"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "it reads both ways (is_decoder is false"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "it is a Qwen2ForSequenceClassification"),
        ({"architectures": ["Qwen2ForTokenClassification"]}, "it is a Qwen2ForTokenClassification"),
        ({"architectures": ["Qwen2ForRewardModel"]}, "it is a Qwen2ForRewardModel"),
        ({"model_type": "t5"}, "it is an encoder-decoder (t5)"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "it is an encoder-decoder (bart)"),
        ({"model_type": "gemma3n"}, "it is a gemma3n, which reads more than images and texts"),
        ({"model_type": "vit"}, "transformers has no causal language model of its type vit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "its weights are quantised (fp8); give the model in bf16"),
        ({"model_type": "no_such_model"}, "install a newer transformers"),
        ({"model_type": None}, "the configuration cannot be loaded"),
        ({"hidden_size": "many"}, "the configuration cannot be loaded"),
    ],
)
def test_what_is_no_causal_language_model_says_what_it_is(model_folder, config, what):
    settings(model_folder, **config)
    assert what in refusal(model_folder)


def test_a_critic_may_have_any_head(model_folder):
    settings(model_folder, architectures=["Qwen2ForTokenClassification"])
    check_model(arguments(model_folder), backbone=True)
    settings(model_folder, quantization_config={"quant_method": "gptq"})
    assert "quantised (gptq)" in refusal(model_folder, backbone=True)


@pytest.mark.parametrize(
    ("file", "what"),
    [
        (None, "it has no weights (model.safetensors)"),
        ("pytorch_model.bin", "its weights are in pytorch_model.bin, which could run code when it is read"),
        ("pytorch_model-00001-of-00002.bin", "its weights are in pytorch_model.bin, which could run code"),
        ("model-q4.gguf", "its weights are in GGUF"),
        ("model-00001-of-00002.safetensors", "it lacks model.safetensors.index.json"),
        ("tf_model.h5", "its weights are TensorFlow's"),
    ],
)
def test_weights_in_another_format_say_what_would_work(model_folder, file, what):
    (model_folder / "model.safetensors").unlink()
    if file:
        (model_folder / file).write_bytes(b"")
    assert what in refusal(model_folder)


def test_the_conversion_that_is_proposed_works(model_folder):
    weights = load_file(model_folder / "model.safetensors")
    torch.save(weights, model_folder / "pytorch_model.bin")
    (model_folder / "model.safetensors").unlink()
    message = refusal(model_folder)
    with pytest.raises(Refused, match="the model cannot be loaded"):
        load_model(arguments(model_folder), torch.float32, torch.device("cpu"), trains=False)
    proposed = re.search('python -c "(.*)"', message)
    exec(proposed[1])
    check_model(arguments(model_folder))
    loaded = load_model(arguments(model_folder), torch.float32, torch.device("cpu"), trains=False).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_missing_shard_is_named(model_folder):
    (model_folder / "model.safetensors").unlink()
    places = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (model_folder / "model-1-of-2.safetensors").write_bytes(b"")
    assert "1 of its weight files are missing, such as model-2-of-2.safetensors" in refusal(model_folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "cannot be loaded (JSONDecodeError"),
        (b"\xff\xfe", "cannot be loaded (UnicodeDecodeError"),
        (b"[" * 100_000, "cannot be loaded (RecursionError"),
        (b"[]", "holds no JSON object"),
    ],
)
def test_damaged_json_is_named(model_folder, tiny_tokenizer, content, what):
    (model_folder / "generation_config.json").write_bytes(content)
    assert f"generation_config.json {what}" in refusal(model_folder, end_token_ids, tiny_tokenizer)
    (model_folder / INDEX).write_bytes(content)
    check_model(arguments(model_folder))
    assert weight_files(arguments(model_folder)) == [model_folder / "model.safetensors"]
    (model_folder / "model.safetensors").unlink()
    assert f"{INDEX} {what}" in refusal(model_folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}])
def test_an_index_that_lists_no_files_is_no_index(model_folder, index):
    (model_folder / "model.safetensors").unlink()
    (model_folder / INDEX).write_text(json.dumps(index))
    assert "has no weight_map" in refusal(model_folder)


def test_an_end_token_that_is_no_id_is_refused(model_folder, tiny_tokenizer):
    settings(model_folder, "generation_config.json", eos_token_id="</s>")
    assert "eos_token_id '</s>' in its generation_config.json" in refusal(model_folder, end_token_ids, tiny_tokenizer)


def test_more_positions_than_the_model_has_are_refused(model_folder):
    settings(model_folder, max_position_embeddings=15)
    with pytest.raises(Refused, match="--prompt_max_len 8 [+] --max_new_tokens 8 = 16, but .* has 15 positions"):
        check_model(arguments(model_folder))


def prompts(*rows):
    return [Prompt(id=str(i), messages=(), token_ids=row, where=f"rows.jsonl:{i}") for i, row in enumerate(rows, 1)]


def test_a_token_beyond_the_vocabulary_is_refused_where_a_prompt_needs_it(model_folder):
    """Special tokens that no prompt needs may lie beyond: many models are shipped so."""
    tokenizer = load_tokenizer(arguments(model_folder))
    settings(model_folder, vocab_size=15)
    check_tokens(arguments(model_folder), tokenizer, prompts((3, 14), (4,)))
    message = refusal(model_folder, check_tokens, tokenizer, prompts((3, 14), (4, 15, 2)))
    assert "its tokenizer has 16 tokens, its model 15, and rows.jsonl:2 needs token 15 ('=')" in message


@pytest.mark.parametrize(
    ("generation", "config", "own", "wanted"),
    [
        (2, None, "<eos>", {2}),
        ([7, 9], None, "<eos>", {2, 7, 9}),
        (None, None, "<eos>", {2}),
        (None, 5, None, {5}),
        ("no file", 5, "<eos>", {2, 5}),
        ("no file", None, None, set()),
        (9, 99, "3", {7, 9}),
        (99, None, "<beyond>", set()),
    ],
)
def test_a_response_ends_at_the_tokens_of_generation_config_and_tokenizer(
    model_folder, generation, config, own, wanted
):
    if generation == "no file":
        (model_folder / "generation_config.json").unlink()
    else:
        settings(model_folder, "generation_config.json", eos_token_id=generation)
    settings(model_folder, eos_token_id=config)
    settings(model_folder, "tokenizer_config.json", eos_token=own)
    args = arguments(model_folder)
    tokenizer = load_tokenizer(args)
    assert end_token_ids(args, tokenizer) == wanted
    said = dead_ends(args, tokenizer, ("=",), templated=False)
    ordinary = sorted(wanted - {tokenizer.eos_token_id})
    for token, line in zip(ordinary, said, strict=True):
        assert (
            f"responses end at the ordinary token '{token - 4}', since its configuration has eos_token_id {token};"
            in line
        )
    more = dead_ends(args, tokenizer, (), templated=False)[len(said) :]
    assert bool(more) == (not wanted)
    assert all("names an end token that the model has, so every response is --max_new_tokens 8 long" in s for s in more)


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        ("{% for m in messages %}{{ m.content }}<unk>\n{% endfor %}", "<unk>"),
        ("{% for m in messages %}{{ m.content }} <eos>{% endfor %}", None),
        ("{% for m in messages %}{{ m.content }}\n{% endfor %}", None),
        ("{{ raise_exception('only questions') }}", None),
    ],
)
def test_a_template_whose_turn_does_not_end_the_response_is_said(model_folder, template, ends):
    (model_folder / "chat_template.jinja").write_text(template)
    args = arguments(model_folder)
    tokenizer = load_tokenizer(args)
    said = dead_ends(args, tokenizer, (), templated=True)
    assert len(said) == (ends is not None)
    assert all(f"its chat template ends a turn with {ends!r}, which is no end token here" in s for s in said)
    assert dead_ends(args, tokenizer, (), templated=False) == dead_ends(args, tokenizer, ("<unk>",), True) == []
