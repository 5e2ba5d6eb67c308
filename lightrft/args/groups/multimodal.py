from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg
from lightrft.args.groups.model import WITH_IMAGES

WITH_CLIPS = WITH_IMAGES.replace("seen.jsonl", "clips.jsonl").replace(" 64", " 200").replace(" 72", " 208")


@dataclass(frozen=True, kw_only=True)
class MultimodalArgs:
    """Multimodal"""

    mixed_mm_data: bool = arg(
        False,
        "Rows with and without images or videos may stand together; else such data is refused.",
        witness=Witness(
            "--no-mixed_mm_data", "refused", given=f"{WITH_IMAGES} --mixed_mm_data --prompt_data half_seen.jsonl"
        ),
    )
    processor: str | None = arg(
        None,
        "Processor of images and videos, a path or hub name; a trained model is saved with it.",
        unset="that of --pretrain",
        witness=Witness("--processor other_processor", "metrics", given=WITH_IMAGES),
        path=True,
    )
    max_pixels: int | None = arg(
        None,
        "Most pixels of an image or a frame; larger ones are scaled down before the processor sees them.",
        ge=1,
        unset="the processor's own",
        witness=Witness("--max_pixels 800", "metrics", given=WITH_IMAGES),
    )
    fps: float = arg(
        2.0,
        "Frames a second that are taken of a video file, and that a folder of frames or a volume, taken whole, is said "
        "to have.",
        gt=0,
        witness=Witness("--fps 0.5", "metrics", given=f"{WITH_CLIPS} --fps 1"),
    )
