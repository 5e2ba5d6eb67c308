from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import unbuilt


@dataclass(frozen=True, kw_only=True)
class MultimodalArgs:
    """Multimodal"""

    mixed_mm_data: bool = unbuilt("vision", False, "Rows with and without images in one step.", "--mixed_mm_data")
    processor: str | None = unbuilt(
        "vision",
        None,
        "Processor of images, a path or hub name.",
        "--processor folder",
        unset="that of --pretrain",
        path=True,
    )
    max_pixels: int | None = unbuilt(
        "vision", None, "Most pixels of one image.", "--max_pixels 1000000", ge=1, unset="the processor's own"
    )
    fps: float | None = unbuilt(
        "vision", None, "Frames a second of video.", "--fps 2", gt=0, unset="the processor's own"
    )
