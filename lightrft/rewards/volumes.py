"""`--reward_fn volume_localisation`: where in a volume a tumour lies, judged in six parts, each in [0, 1].

A response thinks aloud and answers in JSON; the reference is such an object too, or its text:

    <think>Slice 6 shows it largest ...</think>
    <answer>{"bbox_3d": [10, 12, 4, 18, 22, 9], "peak_slice": 6, "tumor_ratio": 0.031}</answer>

bbox_3d: [x1, y1, z1, x2, y2, z2] in voxels, z counts slices; x1 is the first inside and x2 the first beyond, as in a
slice of an array, so the volume is (x2 - x1)(y2 - y1)(z2 - z1). peak_slice: the z at which most voxels are tumour.
tumor_ratio: tumour voxels over all voxels. What is no such thing in a response scores 0, and never raises; a reference
that is none raises `BadReference`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import Any

from lightrft.rewards.answers.extraction import ANSWER, answer_of, thoughts_of, without_thoughts
from lightrft.rewards.answers.references import BadReference
from lightrft.types import Rollout

Box = tuple[float, ...]
FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
KEYWORD = re.compile(r"\b(?:video|volume|scan|slice|frame)s?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """What an answer says; None for what it does not say, or says in a way that is not in this file's head."""

    box: Box | None
    peak: float | None
    ratio: float | None


def iou(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """Volume of what both boxes hold, over the volume of what one of them holds: |A & B| / (|A| + |B| - |A & B|)."""
    (true, _, _), found = truth_of(reference), found_in(answer_of(response, rollout)).box
    return 0.0 if found is None else overlap(found, true)


def peak_slice(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """max(0, 1 - |z - z_true| / depth), the depth being that of the true box in slices: farther off than it is 0."""
    (box, true, _), found = truth_of(reference), found_in(answer_of(response, rollout)).peak
    return 0.0 if found is None else max(0.0, 1.0 - abs(found - true) / (box[5] - box[2]))


def tumor_ratio(response: str, reference: Any, rollout: Rollout | None = None) -> float:
    """min(r, r_true) / max(r, r_true): half for half or twice as much, 0 for a ratio of 0 or outside of [0, 1]."""
    (_, _, true), found = truth_of(reference), found_in(answer_of(response, rollout)).ratio
    return 0.0 if found is None else min(found, true) / max(found, true)


def json_answer(response: str, reference: Any = None, rollout: Rollout | None = None) -> float:
    """1.0 if the answer stands between `<answer>` and `</answer>` and says all three things in JSON, else 0.0."""
    opening = rollout.prompt.opening if rollout else ""
    closes = [bool(closing) for closing in ANSWER.findall(without_thoughts(opening + response))]
    found = found_in(answer_of(response, rollout))
    return float(closes[-2:] == [False, True] and None not in (found.box, found.peak, found.ratio))


def video_keyword(response: str, reference: Any = None, rollout: Rollout | None = None) -> float:
    """1.0 if the thoughts speak of what was shown (video, volume, scan, slice, frame, or several), else 0.0."""
    return float(KEYWORD.search(thoughts_of(response, rollout)) is not None)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes that hold something, in [0, 1]; 0 where they only touch."""
    sides = [min(a[axis + 3], b[axis + 3]) - max(a[axis], b[axis]) for axis in range(3)]
    if min(sides) <= 0:
        return 0.0
    shared = math.prod(sides)
    return min(1.0, shared / (_volume(a) + _volume(b) - shared))  # rounding must not make it more


def truth_of(reference: Any) -> tuple[Box, float, float]:
    """Box, peak and ratio of the reference. Raises `BadReference` with what is missing."""
    if reference is None:
        raise BadReference("the row has no reference")
    true = _finding(reference) if isinstance(reference, Mapping) else found_in(str(reference))
    if true.box is None or not 0 < _volume(true.box) < math.inf:
        raise BadReference("the reference has no bbox_3d [x1, y1, z1, x2, y2, z2] with x1 < x2, y1 < y2 and z1 < z2")
    if true.peak is None:
        raise BadReference("the reference has no peak_slice, the number of a slice from 0 on")
    if not true.ratio:
        raise BadReference("the reference has no tumor_ratio above 0 and up to 1")
    return true.box, true.peak, true.ratio


def found_in(answer: str) -> Finding:
    """What the JSON object says that the whole answer is, also between ```; one that names a key twice says nothing."""
    fenced = FENCED.fullmatch(answer)
    content: Any = None
    with suppress(ValueError, RecursionError):
        content = json.loads(fenced[1] if fenced else answer, object_pairs_hook=_without_repetition)
    return _finding(content if isinstance(content, Mapping) else {})


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is named twice")
    return content


def _finding(content: Mapping[str, Any]) -> Finding:
    peak, ratio = _number(content.get("peak_slice")), _number(content.get("tumor_ratio"))
    return Finding(
        box=_box(content.get("bbox_3d")),
        peak=peak if peak is not None and peak >= 0 else None,
        ratio=ratio if ratio is not None and 0 <= ratio <= 1 else None,
    )


def _box(value: Any) -> Box | None:
    values = value.tolist() if hasattr(value, "tolist") else value  # a column of a table holds arrays
    numbers = [_number(entry) for entry in values] if isinstance(values, (list, tuple)) else []
    box = tuple(number for number in numbers if number is not None)
    return box if len(box) == len(numbers) == 6 and all(box[axis] < box[axis + 3] for axis in range(3)) else None


def _number(value: Any) -> float | None:
    """A finite number; a bool is none, and neither is what is too large for a float."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    with suppress(OverflowError):
        return float(value) if math.isfinite(value) else None
    return None


def _volume(box: Box) -> float:
    return math.prod(box[axis + 3] - box[axis] for axis in range(3))
