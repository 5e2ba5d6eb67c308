import pytest

from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRows
from lightrft.prompts.media.admission import Admission, admitted
from lightrft.types import Prompt


def prompts(*images):
    return [Prompt(str(n), (), images=("a.png",) * count, where=f"a:{n}") for n, count in enumerate(images, 1)]


def refusal(rows, **admission):
    with pytest.raises(Refused) as caught:
        admitted(rows, Admission(**admission), BadRows())
    return str(caught.value)


def test_a_text_model_takes_no_images():
    [clip] = [Prompt("1", (), videos=("a.mp4", "b.mp4"), images=("a.png",), where="a:1")]
    expected = "--prompt_data a:1: it holds 1 image and 2 videos, which a text model cannot see; train_vl.py trains"
    assert refusal([clip]).startswith(expected)
    assert "--images_key none" in refusal([clip])


def test_a_mixture_is_asked_for():
    told = refusal(prompts(1, 0, 2, 0), takes_media=True)
    assert told == (
        "--prompt_data: 2 of 4 rows have neither image nor video (first: a:2); --mixed_mm_data takes rows with and "
        "without them"
    )
    for mixed in (True, False):
        assert len(admitted(prompts(1, 2), Admission(True, mixed), BadRows())) == 2
        assert len(admitted(prompts(0, 0), Admission(True, mixed), BadRows())) == 2
    assert len(admitted(prompts(1, 0), Admission(True, True), BadRows())) == 2


def test_more_images_than_the_limit_are_a_bad_row():
    assert "a:2: it holds 3 images, over --limit_mm_image_per_prompt 2" in refusal(
        prompts(2, 3), takes_media=True, max_images=2
    )
    bad = BadRows(skip=True)
    kept = admitted(prompts(2, 3), Admission(True, max_images=2), bad)
    assert ([prompt.where for prompt in kept], len(bad.faults)) == (["a:1"], 1)
