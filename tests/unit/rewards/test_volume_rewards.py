"""The parts of `volume_localisation`: numbers worked out by hand, and answers that are none."""

from __future__ import annotations

import json
import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightrft.errors import Refused
from lightrft.rewards.combine import build_rewards
from lightrft.rewards.rules import GROUPS
from lightrft.rewards.volumes import overlap
from lightrft.types import Prompt

PARTS = GROUPS["volume_localisation"]
TRUE = {"bbox_3d": [2, 2, 4, 6, 6, 8], "peak_slice": 5, "tumor_ratio": 0.02}
LABEL = ("iou", "peak_slice", "tumor_ratio")


def said(**changes):
    return json.dumps({**TRUE, **changes})


def answer(text, thoughts="Slice 5 is brightest."):
    return f"<think>{thoughts}</think><answer>{text}</answer>"


def scores(response, reference=TRUE):
    return {name: rule.judge(response, reference, None) for name, rule in PARTS.items()}


def finding(response, reference=TRUE):
    parts = scores(response, reference)
    return tuple(parts[name] for name in LABEL)


def test_the_right_answer_has_full_marks_in_all_parts():
    assert scores(answer(said())) == dict.fromkeys(PARTS, 1.0)
    assert list(PARTS) == [*LABEL, "thinking_format", "video_keyword", "format"]


@pytest.mark.parametrize(
    ("box", "value"),
    [
        ([2, 2, 4, 6, 6, 8], 1.0),  # 64 of 64
        ([4, 2, 4, 8, 6, 8], 32 / 96),  # half of either
        ([3, 3, 5, 5, 5, 7], 8 / 64),  # inside
        ([0, 0, 0, 10, 10, 10], 64 / 1000),  # around
        ([4, 4, 6, 8, 8, 10], 8 / 120),  # a corner
        ([6, 2, 4, 8, 6, 8], 0.0),  # touches a side
        ([9, 9, 9, 10, 10, 10], 0.0),  # elsewhere
        ([2.5, 2, 4, 6, 6, 8], 56 / 64),  # between voxels
        ([6, 6, 8, 2, 2, 4], 0.0),  # corners in the wrong order
        ([2, 2, 4, 2, 6, 8], 0.0),  # flat
        ([3, 3, 3, 3, 3, 3], 0.0),
        ([-1e308, -1e308, -1e308, 1e308, 1e308, 1e308], 0.0),  # a volume beyond floats
        ([0, 0, 0, 1e-200, 1e-200, 1e-200], 0.0),  # a volume below them
        ([2, 2, 4, 6, 6], 0.0),
        ([2, 2, 4, 6, 6, 8, 9], 0.0),
        ([2, 2, 4, 6, 6, "8"], 0.0),
        ([False, 2, 4, 6, 6, 8], 0.0),  # false is 0 in Python
        ([2, 2, 4, 6, 6, None], 0.0),
        ([2, 2, 4, 6, 6, math.nan], 0.0),
        ([2, 2, 4, 6, 6, math.inf], 0.0),
        ([2, 2, 4, 6, 6, 10**400], 0.0),
        ([[2, 2, 4], [6, 6, 8]], 0.0),
        ({"x1": 2}, 0.0),
        ("2, 2, 4, 6, 6, 8", 0.0),
        (None, 0.0),
    ],
)
def test_boxes(box, value):
    parts = scores(answer(said(bbox_3d=box)))
    assert parts["iou"] == pytest.approx(value, abs=1e-15)
    assert (parts["peak_slice"], parts["tumor_ratio"]) == (1.0, 1.0), "one wrong entry leaves the others"


@pytest.mark.parametrize(
    ("peak", "value"),
    [(5, 1.0), (4, 0.75), (6.0, 0.75), (7, 0.5), (9, 0.0), (1, 0.0), (0, 0.0), (1e308, 0.0), (-1, 0.0)]
    + [(math.nan, 0.0), (-math.inf, 0.0), ("5", 0.0), (True, 0.0), ([5], 0.0), (None, 0.0), (10**400, 0.0)],
)
def test_the_peak_loses_a_share_of_the_tumours_depth_for_each_slice(peak, value):
    assert finding(answer(said(peak_slice=peak))) == (1.0, value, 1.0)


@pytest.mark.parametrize(
    ("ratio", "value"),
    [(0.02, 1.0), (0.01, 0.5), (0.04, 0.5), (0.03, 2 / 3), (1, 0.02), (2, 0.0), (0, 0.0), (-0.02, 0.0)]
    + [(math.nan, 0.0), (math.inf, 0.0), ("2%", 0.0), (True, 0.0), (None, 0.0), (5e-324, 0.0)],
)
def test_the_ratio_is_compared_with_the_true_one(ratio, value):
    assert finding(answer(said(tumor_ratio=ratio)))[2] == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize(
    ("response", "formatted", "found"),
    [
        (answer(said()), 1, 1),
        (answer(f"```json\n{said()}\n```"), 1, 1),
        (answer(f"```{said()}```"), 1, 1),
        (f"<answer>{said()}</answer> That is all.", 1, 1),  # text after it
        (f"<answer>{said(bbox_3d=[0] * 6)}</answer><answer>{said()}</answer>", 1, 1),  # the last one counts
        (f"<answer>{said()}</answer><answer>no</answer>", 0, 0),
        (f"<answer>{said()}", 0, 1),  # not closed: read all the same
        (said(), 0, 1),  # as in all rules, all of it is the answer
        (f"<think><answer>{said()}</answer>", 0, 0),  # thoughts that never end
        (f"<think><answer>x</answer></think>{said()}", 0, 1),
        (answer(f"The answer: {said()}"), 0, 0),
        (answer(said()[:-1]), 0, 0),
        (answer(f"[{said()}]"), 0, 0),
        (answer(said().replace("{", '{"peak_slice": 5, ')), 0, 0),  # says one thing twice
        (answer(said().replace('"', "'")), 0, 0),
        (answer("[" * 100_000), 0, 0),
        (answer('{"peak_slice":' * 100_000), 0, 0),
        (answer(said().replace("5", "5" * 5000, 1)), 0, 0),  # more digits than Python reads
        (answer("null"), 0, 0),
        (answer(""), 0, 0),
        ("", 0, 0),
    ],
)
def test_the_answer_is_json_between_its_tags(response, formatted, found):
    assert scores(response)["format"] == formatted
    assert finding(response) == (found,) * 3


@pytest.mark.parametrize("changes", [{"bbox_3d": [6] * 6}, {"peak_slice": -1}, {"tumor_ratio": 2}, {"peak_slice": "5"}])
def test_the_format_wants_all_three_to_be_what_they_should(changes):
    assert scores(answer(said(**changes)))["format"] == 0.0


@pytest.mark.parametrize(
    ("response", "value"),
    [
        (answer("x", "In FRAMES 3 to 5"), 1),
        (answer("x", "The scan shows it."), 1),
        (answer("x", "It is sliced."), 0),
        (answer("a slice of the video", "It is there."), 0),  # in the answer
        ("The slice <think>it is there</think> of a video", 0),
        ("<think>The video never ends", 0),
        ("The video </think>", 0),
    ],
)
def test_the_thoughts_speak_of_what_was_shown(response, value):
    assert scores(response)["video_keyword"] == value


def test_tags_with_which_the_prompt_begins_the_response_count(rollout):
    begun = rollout(f"The video shows it.</think><answer>{said()}</answer>", TRUE, opening="<think>")
    asked = rollout(begun.response.removesuffix("</answer>"), TRUE, opening="<think>")
    assert [rule.judge(begun.response, TRUE, begun) for rule in PARTS.values()] == [1.0] * 6
    assert PARTS["format"].judge(asked.response, TRUE, asked) == 0.0


def test_only_the_response_is_judged(rollout):
    silent = rollout("It is there.", TRUE, question=answer(said()))
    assert [rule.judge(silent.response, TRUE, silent) for rule in PARTS.values()] == [0.0] * 6


ARRAYS = {"bbox_3d": numpy.array([2, 2, 4, 6, 6, 8]), "peak_slice": numpy.int64(5), "tumor_ratio": numpy.float32(0.02)}


@pytest.mark.parametrize("reference", [TRUE, json.dumps(TRUE), {**TRUE, "bbox_3d": (2, 2, 4, 6, 6, 8)}, ARRAYS])
def test_the_reference_is_an_object_or_its_text(reference):
    assert finding(answer(said()), reference) == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
    assert PARTS["iou"].objection(Prompt(id="p", messages=(), reference=reference)) is None


@pytest.mark.parametrize(
    ("reference", "missing"),
    [
        (None, "the row has no reference"),
        ("5", "bbox_3d"),
        ({}, "bbox_3d"),
        ({**TRUE, "bbox_3d": [2, 2, 4, 2, 6, 8]}, "bbox_3d"),
        ({**TRUE, "bbox_3d": [-1e308] * 3 + [1e308] * 3}, "bbox_3d"),
        ({**TRUE, "bbox_3d": [0] * 3 + [1e-200] * 3}, "bbox_3d"),
        ({**TRUE, "peak_slice": -1}, "peak_slice"),
        ({**TRUE, "tumor_ratio": 0}, "tumor_ratio"),
        ({**TRUE, "tumor_ratio": math.nan}, "tumor_ratio"),
    ],
)
def test_a_reference_that_is_none_is_known_before_the_run(reference, missing):
    rewards = build_rewards(["volume_localisation"], {}, [])
    objection = rewards.objection(Prompt(id="p", messages=(), reference=reference))
    start = "--reward_fn volume_localisation needs a reference with bbox_3d, peak_slice and tumor_ratio "
    assert objection is not None and objection.startswith(start) and missing in objection.partition("column): ")[2]


NUMBER = st.floats() | st.integers() | st.integers(-20, 20)
VALUE = NUMBER | st.lists(NUMBER, min_size=6, max_size=6) | st.text(max_size=4) | st.none()
CONTENT = st.dictionaries(st.sampled_from(list(TRUE)), VALUE) | VALUE


@given(CONTENT, st.sampled_from(["{}", "<answer>{}</answer>", "<think>frame</think><answer>{}</answer>", "<answer>{}"]))
def test_any_answer_scores_between_0_and_1(content, form):
    response = form.replace("{}", json.dumps(content))
    assert all(0.0 <= value <= 1.0 for value in scores(response).values())


CORNER, SIDE = st.floats(-1e9, 1e9), st.floats(1e-9, 1e9)
BOX = st.tuples(*[CORNER] * 3, *[SIDE] * 3).map(lambda box: (*box[:3], *(box[i] + box[i + 3] for i in range(3))))
BOXES = BOX.filter(lambda box: all(box[i] < box[i + 3] for i in range(3)))


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_whole_for_itself(a, b):
    assert 0.0 <= overlap(a, b) == overlap(b, a) <= 1.0
    assert overlap(a, a) == 1.0


def test_the_weights_are_the_documents_and_one_can_be_set_alone(rollout):
    halves = {name: 0.5 if name in ("thinking_format", "video_keyword", "format") else 1.0 for name in PARTS}
    rewards = build_rewards(["volume_localisation"], {}, [])
    assert rewards.weights == halves and rewards.names == list(PARTS)
    assert rewards.score([rollout(answer(said()), TRUE)])[0].total == 4.5
    other = build_rewards(["volume_localisation"], {"iou": 2, "video_keyword": 0}, [])
    assert other.weights == {**halves, "iou": 2.0, "video_keyword": 0.0}
    assert other.score([rollout(answer(said(), thoughts="There."), TRUE)])[0].total == 5.0


def test_a_rule_of_the_same_name_beside_it_is_refused():
    with pytest.raises(Refused, match="format and volume_localisation are named 'format', .*; leave one of them out"):
        build_rewards(["format", "volume_localisation"], {}, [])
    with pytest.raises(Refused, match=r"no such rule \(did you mean volume_localisation\?\)"):
        build_rewards(["volume_localization"], {}, [])
