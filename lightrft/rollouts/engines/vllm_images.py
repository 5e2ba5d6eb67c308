"""Images for vLLM: what a prompt of them is, and its processor beside the trainer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.rollouts.engines.images import check_alike, difference, noise

if TYPE_CHECKING:
    from lightrft.prompts.vision import Vision
    from lightrft.types import Request


def prompt_of(request: Request) -> dict[str, Any]:
    if request.media is None:
        return {"prompt_token_ids": list(request.prompt_ids)}
    return {
        "prompt_token_ids": list(request.bare_ids),
        "multi_modal_data": {"image": list(request.media.images)},
    }


def check_processor(llm: Any, vision: Vision) -> None:
    from vllm.multimodal import MULTIMODAL_REGISTRY  # pyright: ignore

    theirs = MULTIMODAL_REGISTRY.create_processor(llm.llm_engine.model_config).info.get_hf_processor()
    check_alike("vLLM", processor_fault(vision, theirs))


def processor_fault(vision: Vision, theirs: Any) -> str | None:
    """What the other processor makes otherwise of an image, or of the text around it."""
    try:
        made, other = (vision.read_by(each, noise()) for each in (vision.processor, theirs))
    except BadRow as fault:
        return str(fault)
    return difference(made, other)
