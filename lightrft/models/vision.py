"""Models that see: how they are told from others, and the tokens that stand for what they see."""

from __future__ import annotations

from typing import Any

PLACEHOLDERS = ("image_token_id", "video_token_id", "audio_token_id")  # as transformers names them for every model


def sees(config: Any) -> bool:
    """Whether it is the configuration of a model that reads images and texts, and writes texts."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    known = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    return known and hasattr(config, "vision_config") and not hasattr(config, "audio_config")


def model_kind(config: Any) -> Any:
    """The class of transformers that makes it."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM


def placeholders(config: Any) -> list[int]:
    """Ids of the tokens in whose places features are read."""
    ids = {getattr(config, name, None) for name in PLACEHOLDERS}
    return sorted(id for id in ids if isinstance(id, int) and 0 <= id < config.get_text_config().vocab_size)


def never_write_placeholders(model: Any) -> None:
    """Their logits become -inf, so that nobody can sample one: with no image for it, the next pass would fail.

    The model itself does it, so that whoever runs it gets the same distribution; models/fused_head.py does it where it
    computes in the head's place.
    """
    ids = placeholders(model.config)
    if ids:
        head = model.get_output_embeddings()
        head.never_written = tuple(ids)
        head.register_forward_hook(_without_these)


def _without_these(head: Any, _: Any, logits: Any) -> None:
    import torch

    columns = torch.tensor(head.never_written, dtype=torch.long, device=logits.device)
    logits.index_fill_(-1, columns, float("-inf"))
