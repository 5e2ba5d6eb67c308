"""Rows of TRL, verl, OpenAI and LLaVA that say the same are the same prompt; counts that do not fit are bad rows."""

import json
import time

import pytest

from lightrft.args.groups.data import DataArgs
from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.dataset import load_prompts
from lightrft.prompts.rows import prompt_of

IMAGE, VIDEO = {"type": "image"}, {"type": "video"}
PNG = b"\x89PNG"


def understood(row, **flags):
    return prompt_of(row, "file:1", "file", DataArgs(prompt_data=(), **flags), origin=0)


def fault(row, **flags):
    with pytest.raises(BadRow) as caught:
        understood(row, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def text(words):
    return {"type": "text", "text": words}


def user(content):
    return [{"role": "user", "content": content}]


def contents(row, **flags):
    return [message["content"] for message in understood(row, **flags).messages]


def url(link):
    return {"type": "image_url", "image_url": {"url": link}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Same?", "images": ["a.png", "b.png"]},  # a text: the images come first
        {"prompt": user("Same?"), "images": ["a.png", "b.png"]},
        {"prompt": user("<image><image>Same?"), "images": [{"image": "a.png"}, {"image": "file://b.png"}]},  # verl
        {"prompt": "<image><image>Same?", "images": [{"bytes": None, "path": "a.png"}, {"path": "b.png"}]},
        {"prompt": user([IMAGE, IMAGE, text("Sa"), text("me?")]), "images": ["a.png", "b.png"]},  # TRL
        {"prompt": user([{"type": "image", "image": "a.png"}, IMAGE, text("Same?")]), "images": ["b.png"]},
        {"prompt": user([url("a.png"), {"type": "image_url", "image_url": "b.png"}, text("Same?")])},  # OpenAI
        {"prompt": user([{"type": "image", "url": "a.png", "text": None}, url("b.png"), text("Same?")]), "images": []},
        {"prompt": "Same?", "images": '["a.png", {"path": "b.png"}]'},  # a cell of a CSV file
        {"prompt": [{"from": "human", "value": "<image><image>Same?"}], "images": ("a.png", "b.png")},
        {"prompt": json.dumps(user([IMAGE, IMAGE, text("Same?")])), "images": ["a.png", "b.png"]},
    ],
)
def test_each_form_of_a_row_is_the_same_prompt(row):
    prompt = understood(row)
    assert prompt.messages == ({"role": "user", "content": (IMAGE, IMAGE, text("Same?"))},)
    assert (prompt.images, prompt.videos) == (("a.png", "b.png"), ())


def test_marks_stand_anywhere_and_every_message_has_parts():
    turns = [{"role": "system", "content": "Look."}, *user("A <image> and <video>\n, and <image>"), *user("So?")]
    prompt = understood({"prompt": turns, "images": ["a.png", "b.png"], "videos": ["c.mp4"]})
    assert [message["content"] for message in prompt.messages] == [
        (text("Look."),),
        (text("A "), IMAGE, text(" and "), VIDEO, text("\n, and "), IMAGE),
        (text("So?"),),
    ]
    assert (prompt.images, prompt.videos) == (("a.png", "b.png"), ("c.mp4",))


def test_media_without_a_place_come_before_the_first_user_turn_images_first():
    turns = [{"role": "system", "content": "Look."}, *user("What?"), {"role": "assistant", "content": ""}, *user("So?")]
    made = contents({"prompt": turns, "videos": ["c.mp4"], "image": "a.png"})
    assert made == [(text("Look."),), (IMAGE, VIDEO, text("What?")), (text(""),), (text("So?"),)]


def test_media_that_parts_carry_keep_the_order_of_their_parts():
    parts = [{"type": "video", "video": ["1.png", "2.png"]}, {"type": "image", "base64": "aGk="}, IMAGE]
    prompt = understood({"prompt": [*user(parts), *user([{"type": "image", "image": PNG}])], "images": ["x.png"]})
    assert (prompt.images, prompt.videos) == (("aGk=", "x.png", PNG), (("1.png", "2.png"),))
    assert contents({"prompt": user([{"type": "image", "image": PNG}])}) == [(IMAGE,)]


def test_rows_without_media_are_texts_as_before():
    for row in ({"images": None, "videos": []}, {"images": []}, {}):
        assert contents({"prompt": user([text("Is <b> "), text("a tag?")]), **row}) == ["Is <b> a tag?"]
    assert contents({"prompt": "What does <image> do in SVG, <video> in HTML?"}) == [
        "What does <image> do in SVG, <video> in HTML?"
    ]
    assert contents({"prompt": "Is <video> a tag?", "image": "a.png"}) == [(IMAGE, text("Is <video> a tag?"))]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"prompt": "<image>?", "images": ["a", "b"]},
            "marks <image> in the text: 1; images in the row's column: 2; each image needs one mark",
        ),
        ({"prompt": "<image><image>?", "image": "a"}, "marks <image> in the text: 2; images in the row's column: 1;"),
        ({"prompt": "<image>?", "images": None}, "marks <image> in the text: 1; images in the row's column: 0;"),
        ({"prompt": "<video>?", "videos": ["a", "b"]}, "marks <video> in the text: 1; videos in the row's column: 2"),
        (
            {"prompt": user([IMAGE, text("?")])},
            "image parts without one of their own: 1; images in the row's column: 0; each image needs one part",
        ),
        ({"prompt": user([IMAGE, text("?")]), "images": ["a", "b"]}, "of their own: 1; images in the row's column: 2;"),
        ({"prompt": user([url("a"), text("?")]), "images": ["a"]}, "of their own: 0; images in the row's column: 1;"),
        ({"prompt": user([IMAGE]), "images": ["a"], "videos": ["v"]}, "of their own: 0; videos in the row's column: 1"),
        (
            {"prompt": "?", "images": ["a", "https://x.org/b.png"]},
            "image 2 of 2 in 'images' is at an address (https://...), and nothing",
        ),
        ({"prompt": user([url("http://x.org/a.png")])}, "image 1 of the messages is at an address (http://...), and"),
        ({"prompt": "?", "videos": ["s3://bucket/v.mp4"]}, "video 1 of 1 in 'videos' is at an address (s3://...), and"),
        ({"prompt": "?", "images": ["a", None]}, "image 2 of 2 in 'images' is empty; a path or bytes work"),
        ({"prompt": "?", "images": [b""]}, "image 1 of 1 in 'images' is empty"),
        ({"prompt": "?", "images": [" "]}, "image 1 of 1 in 'images' is an empty text"),
        ({"prompt": "?", "images": 5}, "image 1 of 1 in 'images' is of type int"),
        ({"prompt": "?", "images": [["a"]]}, "image 1 of 1 in 'images' is of type list"),
        ({"prompt": "?", "videos": [["a", 5]]}, "frame 2 of video 1 of 1 in 'videos' is of type int"),
        ({"prompt": "?", "images": [{"file": "a"}]}, "image 1 of 1 in 'images' holds none of bytes, image, video"),
        ({"prompt": "?", "images": [{"image": "a", "path": "b"}]}, "holds 2 of bytes, image, video"),
        ({"prompt": "?", "images": [{"image": "a", "max_pixels": 9}]}, "sets 'max_pixels' for itself; --max_pixels"),
    ],
)
def test_what_does_not_fit_is_a_bad_row_with_both_numbers(row, expected):
    assert expected in fault(row)


def test_the_flag_names_the_column_and_none_makes_plain_columns():
    row = {"prompt": "What?", "images": ["a.png"], "scan": "b.png", "video": "c.mp4"}
    assert understood(row, images_key="scan").images == ("b.png",)
    assert understood(row, images_key="other").images == ()
    plain = understood(row, images_key="none")
    assert (plain.messages[0]["content"], plain.has_media) == ("What?", False)
    assert plain.columns == {"images": ["a.png"], "scan": "b.png", "video": "c.mp4"}


def test_columns_keep_paths_and_drop_what_is_large():
    row = {"prompt": "What?", "images": [{"bytes": PNG, "path": "a.png"}, PNG, "b.png", "A" * 2000], "label": PNG}
    assert understood(row).columns == {"images": [{"path": "a.png"}, None, "b.png", None], "label": PNG}
    assert understood(row).images == ({"bytes": PNG, "path": "a.png"}, PNG, "b.png", "A" * 2000)


def load(tmp_path, *rows, **flags):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_prompts([str(tmp_path / "a.jsonl")], "train", DataArgs(prompt_data=(), **flags))


def test_ids_depend_on_the_media_and_paths_begin_at_the_file(tmp_path):
    rows = [{"prompt": "x", "image": "a.png"}, {"prompt": "x", "image": "b.png"}, {"prompt": "x"}]
    prompts = load(tmp_path, *rows)
    assert [prompt.folder for prompt in prompts] == [str(tmp_path), str(tmp_path), ""]
    assert len({prompt.id for prompt in prompts}) == 3 and not any("-" in prompt.id for prompt in prompts)
    assert [prompt.id for prompt in load(tmp_path, *rows[::-1])] == [prompt.id for prompt in prompts[::-1]]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Q: {}\nA:", (IMAGE, text("Q: See "), VIDEO, text("?\nA:"))),
        ("{prompt} So {prompt}", (IMAGE, text("See "), VIDEO, text("? So See ?"))),
    ],
)
def test_the_template_goes_around_text_behind_leading_images(tmp_path, template, expected):
    row = {"prompt": "<image>See <video>?", "image": "a.png", "video": "b.mp4"}
    [prompt] = load(tmp_path, row, input_template=template, system_prompt="Be short.")
    assert [message["content"] for message in prompt.messages] == [(text("Be short."),), expected]


def test_a_hundred_thousand_images_that_do_not_exist_are_read_at_once():
    began = time.process_time()
    for index in range(100_000):
        understood({"prompt": "What is it?", "image": f"missing/{index}.png"})
    assert time.process_time() - began < 5
