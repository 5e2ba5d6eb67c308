"""Lines about good prompts: what the run does with them that a user might not expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lightrft.prompts.template import Template, is_whole
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_LOOKED_AT = 100  # prompts, for the names of their columns
WHOLE = "are whole in the chat template already: taken as they are (--apply_chat_template adds a second)"


def remarks(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, template: Template | None, *, knows_whole: bool
) -> list[str]:
    """template: None where none is used; knows_whole: texts that are in it already are left as they are."""
    if template is None:
        bos: Any = tokenizer.bos_token
        by_remark = {
            "have tools or chat_template_kwargs, which do nothing without the chat template": _with_options(prompts),
            f"begin with {bos}: no second one is added": _with_bos(prompts, bos, first=True),
            f"hold {bos} beside the one that they begin with": _with_bos(prompts, bos, first=False),
        }
        return lines(by_remark, len(prompts))
    whole = [prompt for prompt in prompts if knows_whole and is_whole(prompt, template)]
    whole_ids = {id(prompt) for prompt in whole}
    others = [prompt for prompt in prompts if id(prompt) not in whole_ids]
    by_remark = {
        WHOLE: whole,
        "have tools or chat_template_kwargs, which do nothing in a whole prompt": _with_options(whole),
        "hold tokens that the chat template writes itself around each turn": _marked(others, template),
        f"end in {template.after.strip()!r}, which the chat template writes there once more": _closed(others, template),
        "end in an assistant turn, which the model goes on with": _answered(others),
    }
    silent = f"the chat template writes no {template.answers!r} before an answer: the model has to"
    return [*lines(by_remark, len(prompts)), *([silent] if prompts and template.answers else [])]


def remarks_on_media(prompts: Sequence[Prompt], images_key: str) -> list[str]:
    """Of prompts for a model that sees, which are encoded when they are taken."""
    seen = [prompt for prompt in prompts if prompt.has_media]
    if prompts and not seen:
        present = ", ".join(sorted({key for prompt in prompts[:MOST_LOOKED_AT] for key in prompt.columns})) or "none"
        return [
            f"no prompt has an image or a video, which the model could see (--images_key {images_key}; columns there: "
            f"{present})"
        ]
    return lines({"end in an assistant turn, which the model goes on with": _answered(seen)}, len(prompts))


def lines(by_remark: dict[str, list[Prompt]], total: int) -> list[str]:
    return [
        f"{len(prompts)} of {total} prompts (first: {prompts[0].where or prompts[0].id}) {remark}"
        for remark, prompts in by_remark.items()
        if prompts
    ]


def _with_options(prompts: Sequence[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.columns.get("tools") or prompt.columns.get("chat_template_kwargs")]


def _with_bos(prompts: Sequence[Prompt], bos: str | None, *, first: bool) -> list[Prompt]:
    if not bos:
        return []
    texts = ["\n".join(turn["content"] for turn in prompt.messages) for prompt in prompts]
    has_bos = [text.startswith(bos) if first else bos in text.removeprefix(bos) for text in texts]
    return [prompt for prompt, has in zip(prompts, has_bos, strict=True) if has]


def _marked(prompts: Sequence[Prompt], template: Template) -> list[Prompt]:
    return [p for p in prompts if any(mark in turn["content"] for turn in p.messages for mark in template.markers)]


def _closed(prompts: Sequence[Prompt], template: Template) -> list[Prompt]:
    """Without those that hold a marker: they have a remark of their own."""
    marked = {id(prompt) for prompt in _marked(prompts, template)}
    asking = [p for p in prompts if p.messages[-1]["role"] != "assistant" and id(p) not in marked]
    return [prompt for prompt in asking if template.ends(prompt.messages[-1]["content"])]


def _answered(prompts: Sequence[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.messages[-1]["role"] == "assistant"]
