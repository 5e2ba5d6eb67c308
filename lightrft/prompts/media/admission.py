"""What is known of a prompt's media without a look at them, and whether the run takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from operator import attrgetter
from typing import TYPE_CHECKING

from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRows, origins
from lightrft.prompts.media.references import name_of
from lightrft.prompts.media.video_files import FILES
from lightrft.prompts.media.volumes import NIFTI
from lightrft.types import Prompt

if TYPE_CHECKING:
    from lightrft.args import Args


@dataclass(frozen=True)
class Admission:
    """takes_media: the model reads images; mixed: rows with and without media may stand together;
    max_images: most of a prompt, None for no limit.
    """

    takes_media: bool = False
    mixed: bool = False
    max_images: int | None = None

    def objection(self, prompt: Prompt) -> str | None:
        images, videos = len(prompt.images), len(prompt.videos)
        if (images or videos) and not self.takes_media:
            held = " and ".join(f"{count} {kind}s" for count, kind in ((images, "image"), (videos, "video")) if count)
            return (
                f"it holds {held.replace('1 images', '1 image').replace('1 videos', '1 video')}, which a text model "
                "cannot see; train_vl.py trains models that can, and --images_key none makes plain columns of theirs"
            )
        if self.max_images is not None and images > self.max_images:
            return f"it holds {images} images, over --limit_mm_image_per_prompt {self.max_images}"
        return None


def admitted(prompts: Sequence[Prompt], admission: Admission, bad: BadRows) -> list[Prompt]:
    """The prompts that the run takes; the others are bad rows. Raises `Refused`, also for a mixture not asked for."""
    objections = [admission.objection(prompt) for prompt in prompts]
    for prompt, reason in zip(prompts, objections, strict=True):
        if reason is not None:
            bad.add(prompt.origin, prompt.where, reason)
    kept = [prompt for prompt, reason in zip(prompts, objections, strict=True) if reason is None]
    bad.settle(origins(prompts) - origins(kept))
    if not admission.mixed:
        _check_unmixed(kept, bad.flag)
    check_packages(kept, bad.flag)
    return kept


def idle_flags(args: Args, prompts: Sequence[Prompt]) -> list[str]:
    """A line for each flag that someone typed and that these prompts leave nothing to do for."""
    images, videos = (any(map(attrgetter(kind), prompts)) for kind in ("images", "videos"))
    mixed = any(prompt.has_media for prompt in prompts) and not all(prompt.has_media for prompt in prompts)
    reasons = {
        "max_pixels": None if images or videos else "no prompt has an image or a video",
        "fps": None if videos else "no prompt has a video",
        "limit_mm_image_per_prompt": None if images else "no prompt has an image",
        "mixed_mm_data": None if mixed else "all rows have images or videos, or none has",
    }
    idle = {flag: reason for flag, reason in reasons.items() if reason and args.typed(flag) and args.value(flag)}
    return [f"--{flag} cannot matter: {reason}" for flag, reason in idle.items()]


def check_packages(prompts: Sequence[Prompt], flag: str) -> None:
    """As far as names tell: what media need is asked for now, not when the first of them is taken."""
    if any(prompt.has_media for prompt in prompts) and find_spec("PIL") is None:
        raise Refused(f"{flag} holds images, which need a package: pip install pillow")
    if find_spec("nibabel") is None:
        _refuse_any(prompts, NIFTI, flag, "pip install nibabel")
    if find_spec("av") is None and find_spec("torchcodec") is None:
        _refuse_any(prompts, FILES, flag, "pip install av (or torchcodec, which needs FFmpeg)")


def _refuse_any(prompts: Sequence[Prompt], suffixes: tuple[str, ...], flag: str, remedy: str) -> None:
    for prompt in (prompt for prompt in prompts if prompt.has_media):
        names = [name_of(reference) for reference in (*prompt.images, *prompt.videos)]
        needing = [name for name in names if isinstance(name, str) and name.lower().endswith(suffixes)]
        if needing:
            raise Refused(f"{flag} {prompt.where}: {needing[0]} needs a package: {remedy}")


def _check_unmixed(prompts: Sequence[Prompt], flag: str) -> None:
    without = [prompt for prompt in prompts if not (prompt.images or prompt.videos)]
    if without and len(without) < len(prompts):
        count = f"{len(without)} of {len(prompts)} rows have neither image nor video (first: {without[0].where})"
        raise Refused(f"{flag}: {count}; --mixed_mm_data takes rows with and without them")
