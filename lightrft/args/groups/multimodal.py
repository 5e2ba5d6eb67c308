from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt
from lightrft.args.groups.model import WITH_IMAGES


@dataclass(frozen=True, kw_only=True)
class MultimodalArgs:
    """Multimodal"""

    mixed_mm_data: bool = unbuilt("vision", False, "Rows with and without images in one step.", "--mixed_mm_data")
    processor: str | None = arg(
        None,
        "Processor of images and videos, a path or hub name; a trained model is saved with it.",
        unset="that of --pretrain",
        witness=Witness("--processor other_processor", "metrics", given=WITH_IMAGES),
        path=True,
    )
    max_pixels: int | None = unbuilt(
        "vision", None, "Most pixels of one image.", "--max_pixels 1000000", ge=1, unset="the processor's own"
    )
    fps: float | None = unbuilt(
        "vision", None, "Frames a second of video.", "--fps 2", gt=0, unset="the processor's own"
    )
