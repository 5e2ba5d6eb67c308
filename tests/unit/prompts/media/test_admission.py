import pytest

from lightrft.args import parse
from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRows
from lightrft.prompts.media import admission
from lightrft.prompts.media.admission import Admission, admitted
from lightrft.types import Prompt

NEEDED = (
    "--pretrain m --prompt_data a --save_path out --reward_fn last_number --rollout_batch_size 4 --train_batch_size 16 "
    "--n_samples_per_prompt 4"
)


def prompts(*images):
    return [Prompt(str(n), (), images=("a.png",) * count, where=f"a:{n}") for n, count in enumerate(images, 1)]


def refusal(rows, **flags):
    with pytest.raises(Refused) as caught:
        admitted(rows, Admission(**flags), BadRows())
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


@pytest.mark.parametrize(
    ("missing", "media", "expected"),
    [
        ({"PIL"}, {"images": ("a",)}, "--prompt_data holds images, which need a package: pip install pillow"),
        ({"nibabel"}, {"images": ("a.NII.gz",)}, "--prompt_data a:1: a.NII.gz needs a package: pip install nibabel"),
        ({"av", "torchcodec"}, {"videos": ("f", "a.mp4")}, "--prompt_data a:1: a.mp4 needs a package: pip install av"),
        ({"av"}, {"videos": ("a.mp4",)}, None),
        ({"av", "torchcodec", "nibabel"}, {"videos": ("frames", "a.npy", ("a.png",))}, None),
    ],
)
def test_packages_are_asked_for_at_the_start(monkeypatch, missing, media, expected):
    monkeypatch.setattr(admission, "find_spec", lambda name: None if name in missing else object())
    rows = [Prompt("1", (), where="a:1", **media)]
    if expected:
        assert refusal(rows, takes_media=True).startswith(expected)
    else:
        assert admitted(rows, Admission(True), BadRows()) == rows


@pytest.mark.parametrize(
    ("rows", "idle"),
    [
        (prompts(0), ["max_pixels", "fps", "limit_mm_image_per_prompt", "mixed_mm_data"]),
        (prompts(1), ["fps", "mixed_mm_data"]),
        (prompts(1, 0), ["fps"]),
        ([Prompt("1", (), videos=("a.mp4",))], ["limit_mm_image_per_prompt", "mixed_mm_data"]),
        ([Prompt("1", (), videos=("a.mp4",)), *prompts(1, 0)], []),
    ],
)
def test_flags_that_no_prompt_gives_anything_to_do_are_told(rows, idle):
    flags = "--max_pixels 9 --fps 1 --limit_mm_image_per_prompt 3 --mixed_mm_data"
    told = [line.split()[0] for line in admission.idle_flags(parse(f"{NEEDED} {flags}".split()), rows)]
    assert told == [f"--{flag}" for flag in idle]
    assert admission.idle_flags(parse(NEEDED.split()), rows) == []
