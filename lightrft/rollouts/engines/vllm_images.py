"""Images and videos for vLLM: what a prompt of them is, and its processor beside the trainer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.vision import video_facts
from lightrft.rollouts.engines.images import check_alike, difference, noise
from lightrft.types import Media

if TYPE_CHECKING:
    from lightrft.prompts.vision import Vision
    from lightrft.types import Request


FRAMES = 4  # of the video that both processors read
UNTOLD_FPS = 24.0  # what transformers takes for it
AS_THEY_ARE = {"videos_kwargs": {"do_sample_frames": False}}


def prompt_of(request: Request) -> dict[str, Any]:
    if request.media is None:
        return {"prompt_token_ids": list(request.prompt_ids)}
    media = request.media
    facts = [{**each, "fps": each["fps"] or UNTOLD_FPS} for each in video_facts(media)]
    given = {"image": list(media.images), "video": list(zip(media.videos, facts, strict=True))}
    asked = {"prompt_token_ids": list(request.bare_ids), "multi_modal_data": {k: v for k, v in given.items() if v}}
    return {**asked, **({"mm_processor_kwargs": AS_THEY_ARE} if facts else {})}


def check_processor(llm: Any, vision: Vision, videos: bool) -> None:
    from vllm.multimodal import MULTIMODAL_REGISTRY  # pyright: ignore

    theirs = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.model_config).info.get_hf_processor()
    check_alike("vLLM", processor_fault(vision, theirs, videos))


def processor_fault(vision: Vision, theirs: Any, videos: bool = False) -> str | None:
    """What the other processor makes otherwise of an image or a video, or of the text around it. videos: whether there
    are any."""
    frames = np.stack([np.asarray(noise())] * FRAMES)
    shown = [Media(images=(noise(),)), *([Media(videos=(frames,), video_fps=(None,))] if videos else [])]
    try:
        each = [(vision.read_by(vision.processor, media), vision.read_by(theirs, media)) for media in shown]
    except BadRow as fault:
        return str(fault)
    return next((fault for made, other in each if (fault := difference(made, other))), None)
