"""The text around images is written as a text without them is: once in the template, one BOS, open at its end."""

from __future__ import annotations

import base64
import io
import json
import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from vision_case import Case, picture
from vision_models import MARK, QWEN, model_args, save_tiny

from lightrft.args import parse
from lightrft.models.processor import load_vision
from lightrft.models.tokenizer import load_tokenizer
from lightrft.preflight import check_inputs
from lightrft.prompts.bad_rows import BadRow, BadRows
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.encoding import encode_prompts
from lightrft.rewards.rules import RuleReward
from lightrft.rollouts.collector import RolloutMaker
from lightrft.rollouts.engines.base import Sampling
from lightrft.types import Media, Prompt

IMAGE = {"type": "image"}
USER, ASKS = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
BEFORE, PAD, AFTER = QWEN[0], QWEN[2], QWEN[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_tiny("qwen2_vl", tmp_path_factory.mktemp("sees"))


def says(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def row(*parts: Any, **more: Any) -> Prompt:
    images = tuple(picture(56, 56) for part in parts if part == IMAGE)
    content = parts if images else "".join(part["text"] for part in parts)
    return Prompt("p", ({"role": "user", "content": content},), images=images, **more)


def encoder(folder: Path, tokenizer: Any = None, wanted: bool | None = None) -> Encoder:
    args = model_args(folder)
    tokenizer = tokenizer or load_tokenizer(args)
    return Encoder(tokenizer, load_vision(args, None, tokenizer, lambda p: Media(images=p.images), wanted))


def seen(encoder: Encoder, *parts: Any, **more: Any) -> str:
    return encoder.as_the_model_sees(row(*parts, **more))


def test_what_stands_for_an_image_is_not_written_by_a_row_without_one(folder: Path):
    """The model would look for an image there: rows with and without images together ended in its traceback."""
    own, bad = encoder(folder), BadRows(skip=True)
    rows = [row(says(f"a {PAD} tag")), row(IMAGE, says("one")), row(says(f"{QWEN[3]}?"))]
    more: Any = {"apply_chat_template": None, "prompt_max_len": 99, "placeholders": own.vision.placeholders}
    kept = encode_prompts(rows, own.tokenizer, bad=bad, **more)
    assert kept == [rows[1]], "a source of which an image is left is not empty"
    assert f"its text holds {PAD!r}, which stands for an image or a video, and the row has none" in bad.summary()[0]
    with pytest.raises(BadRow, match=r"holds '<\|video_pad\|>', which stands for a video, and the row has none"):
        own.request(row(IMAGE, says(f"a {QWEN[3]} tag")), (0,))


@pytest.mark.parametrize(
    "parts",
    [
        (says(USER), IMAGE, says("what?" + ASKS)),
        (IMAGE, says(USER + "what?" + ASKS)),  # a row without a mark
        (says(USER + BEFORE), IMAGE, says(AFTER + "what?" + ASKS)),  # around it already
        (IMAGE, says("what?")),
    ],
)
def test_a_whole_text_is_not_put_into_the_template_once_more(folder, parts):
    assert seen(encoder(folder), *parts) == USER + MARK[0] + "what?" + ASKS


def test_marks_of_the_processor_in_a_whole_text_are_the_places_of_its_images(folder):
    """As an export of another program has them: each mark is an image, in their order."""
    whole = USER + "first " + MARK[0] + " and " + MARK[0] + "?" + ASKS
    assert seen(encoder(folder), IMAGE, IMAGE, says(whole)) == whole
    with pytest.raises(BadRow, match=r"holds '<\|image_pad\|>', which stands for an image; write <image> where each"):
        seen(encoder(folder), IMAGE, says(whole))  # two marks for one image
    with pytest.raises(BadRow, match="holds '<|image_pad|>'"):
        seen(encoder(folder), IMAGE, IMAGE, says("which of " + PAD + PAD))  # a text that is not whole
    with pytest.raises(BadRow, match="holds '<|image_pad|>'"):
        seen(encoder(folder), says(USER), IMAGE, says(MARK[0] + "?" + ASKS))  # its image has a place already


def test_a_whole_text_is_put_there_where_it_is_asked_for_and_told_where_not(folder):
    whole = says(USER), IMAGE, says("what?" + ASKS)
    assert seen(encoder(folder, wanted=True), *whole).count(ASKS) == 2
    assert seen(encoder(folder), *whole, conversational=True).count(ASKS) == 2
    vision: Any = encoder(folder).vision
    [told] = vision.texts.told([row(IMAGE, says("what?")), row(*whole, where="a:2")])
    assert told.startswith("1 of 2 prompts (first: a:2) are whole in the chat template already: taken as they are")


def special(folder: Path, single: str, template: str = "") -> Any:
    """A tokenizer that sets tokens around a text."""
    tokenizer: Any = load_tokenizer(model_args(folder))
    tokenizer.bos_token, tokenizer.chat_template = "<|im_start|>", template or None
    names = "<|im_start|>", "<|im_end|>"
    tokens = list(zip(names, tokenizer.convert_tokens_to_ids(list(names)), strict=True))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    return tokenizer


def test_an_end_token_that_the_tokenizer_adds_is_taken_off_all_that_the_model_gets(folder):
    plain = encoder(folder, special(folder, "<|im_start|> $A"), False).request(row(IMAGE, says("what?")), ())
    ended = encoder(folder, special(folder, "<|im_start|> $A <|im_end|>"), False)
    made = ended.request(row(IMAGE, says("what?")), ())
    assert ended.as_the_model_sees(row(IMAGE, says("what?"))) == "<|im_start|>" + PAD + "what?"
    assert made.prompt_ids == plain.prompt_ids and made.mm_inputs is not None and plain.mm_inputs is not None
    assert {name: value.tolist() for name, value in made.mm_inputs.per_token.items()} == {
        name: value.tolist() for name, value in plain.mm_inputs.per_token.items()
    }
    assert made.mm_inputs.positions is not None and plain.mm_inputs.positions is not None
    assert made.mm_inputs.positions.tolist() == plain.mm_inputs.positions.tolist()


def test_a_bos_that_was_typed_is_not_doubled(folder):
    assert seen(encoder(folder, special(folder, "<|im_start|> $A"), False), says("<|im_start|>a"), IMAGE) == (
        "<|im_start|>a" + PAD
    )


def test_an_end_token_that_the_template_sets_behind_a_prompt_is_taken_off(folder):
    template: Any = load_tokenizer(model_args(folder)).chat_template
    closing = encoder(folder, special(folder, "$A", template + "{% if add_generation_prompt %}<|im_end|>{% endif %}"))
    assert seen(closing, IMAGE, says("what?")) == USER + MARK[0] + "what?" + ASKS
    assert closing.vision is not None
    assert closing.vision.texts.told([row(IMAGE, says("what?"))]) == [
        "the chat template sets the end token '<|im_end|>' behind a prompt: taken off, an answer goes there"
    ]


def test_rewards_know_the_tag_with_which_the_template_began_the_response(folder, tmp_path):
    thinks = save_tiny("qwen2_vl", tmp_path / "thinks")
    file = thinks / "chat_template.jinja"
    file.write_text(file.read_text().replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"))
    case = Case(thinks)
    assert case.encoder.request(case.prompts[0], ()).opening.startswith("<think>")
    text = encode_prompts([row(says("2?"))], case.tokenizer, apply_chat_template=None, prompt_max_len=99)[0]
    maker = RolloutMaker(case.encoder, case.engine, RuleReward("exact"), 0, 2, nullcontext)
    asked = [replace(each, position=i, reference="5") for i, each in enumerate((case.prompts[0], text))]
    made = maker.make(asked, 1, 1, Sampling(2))
    assert [rollout.prompt.opening for rollout in made] == [text.opening] * 2
    begun = Prompt("b", ({"role": "user", "content": (IMAGE,)}, {"role": "assistant", "content": (says("<think>So"),)}))
    assert case.encoder.request(replace(begun, images=(picture(56, 56),)), ()).opening == "<think>"


def test_a_template_that_the_processor_alone_has_is_that_of_texts_too(tmp_path):
    folder = save_tiny("qwen2_vl", tmp_path / "older")
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    picture(56, 56).save(tmp_path / "a.png")
    rows = {"prompt": "what?", "answer": "5", "images": ["a.png"]}, {"prompt": "what?", "answer": "5"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = f"--pretrain {folder} --prompt_data {tmp_path}/rows.jsonl --reward_fn exact --label_key answer"
    flags += f" --prompt_max_len 99 --max_len 120 --save_path {tmp_path}/run --mixed_mm_data"
    flags += " --rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4"
    inputs = check_inputs(parse(flags.split()))
    shown = [inputs.encoder.as_the_model_sees(prompt) for prompt in inputs.prompts]
    assert shown == [USER + MARK[0] + "what?" + ASKS, USER + "what?" + ASKS]


def test_an_image_goes_to_another_rank_once_for_all_samples_of_its_prompt(folder):
    """Rollouts are sent as one letter; an image in base64 stands in its prompt's references, its pixels beside it."""
    case = Case(folder)
    file = io.BytesIO()
    picture(200, 200).save(file, "PNG")
    written = base64.b64encode(file.getvalue()).decode()
    prompt = replace(case.prompts[0], images=(written,), position=0, reference="5")
    vision = replace(case.vision, read=lambda p: Media(images=(picture(200, 200),)))
    maker = RolloutMaker(Encoder(case.tokenizer, vision), case.engine, RuleReward("exact"), 0, 2, nullcontext)
    made = maker.make([prompt], 1, 8, Sampling(2))
    assert len(made) == 8 and len(written) > 100_000
    one, all_of_them = len(pickle.dumps(made[:1])), len(pickle.dumps(made))
    assert one > len(written) and all_of_them < one + 7 * 2_000
