"""From messages to token ids, once; and from a response's ids back to text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRow, BadRows, origins
from lightrft.prompts.tags import opening_of, special_tags
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOGETHER = 1000  # prompts in one call of the tokenizer: a quarter faster than one by one, and it may use all cores


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: PreTrainedTokenizerBase,
    *,
    apply_chat_template: bool | None,
    prompt_max_len: int,
    flag: str = "--prompt_data",
    bad: BadRows | None = None,
) -> list[Prompt]:
    """The prompts with `token_ids`, in the same order, without those that `bad` may skip.

    `apply_chat_template`: True and False are taken at their word; None means "where the tokenizer has one". Without a
    template the messages' contents are joined by newlines and get the tokenizer's own special tokens. Nothing is ever
    truncated: a prompt of more than `prompt_max_len` tokens, or of none, is a bad row. Raises `Refused`.
    """
    bad = bad or BadRows(flag)
    encoded = list(_encoded(prompts, tokenizer, _use_template(tokenizer, apply_chat_template), bad))
    if not bad.skip:
        _check_lengths(encoded, prompt_max_len, bad.flag)
    kept = [prompt for prompt in encoded if len(prompt.token_ids) <= prompt_max_len]
    for prompt in encoded:
        if len(prompt.token_ids) > prompt_max_len:
            bad.add(prompt.origin, _place(prompt), _too_long(prompt, prompt_max_len))
    bad.settle(origins(prompts) - origins(kept))
    return kept


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """A response as rewards see it: no special tokens but the tags of thoughts, and spaces as they were sampled."""
    tags, text, start = special_tags(tokenizer), "", 0
    for end in [index for index, id in enumerate(ids) if id in tags]:
        text, start = text + _decoded(tokenizer, ids[start:end]) + tags[ids[end]], end + 1
    return text + _decoded(tokenizer, ids[start:])


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str), "one sequence of ids is one text"
    return text


def as_the_model_sees(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The encoded prompt as text: template, special tokens and all."""
    text = tokenizer.decode(list(prompt.token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str), "one sequence of ids is one text"
    return text


def _use_template(tokenizer: PreTrainedTokenizerBase, wanted: bool | None) -> bool:
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if wanted and not has_template:
        where = f"the tokenizer of {tokenizer.name_or_path or '--pretrain'}"
        raise Refused(f"--apply_chat_template: {where} has no chat template; --no-apply_chat_template works")
    return has_template if wanted is None else wanted


def _encoded(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, templated: bool, bad: BadRows
) -> Iterator[Prompt]:
    for start in range(0, len(prompts), TOGETHER):
        part = prompts[start : start + TOGETHER]
        for prompt, ids in zip(part, _ids_of(part, tokenizer, templated), strict=True):
            if isinstance(ids, BadRow):
                bad.add(prompt.origin, _place(prompt), str(ids))
            elif not ids:
                bad.add(prompt.origin, _place(prompt), "the prompt has no tokens; it needs some text")
            else:
                last = prompt.messages[-1]
                begun = last["content"] if last["role"] == "assistant" else None
                yield replace(prompt, token_ids=tuple(ids), opening=opening_of(tokenizer, ids, begun))


def _ids_of(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, templated: bool
) -> Sequence[Sequence[int] | BadRow]:
    try:
        if len(prompts) == 1 or not (templated and any(map(_options, prompts))):  # one call has one set of options
            return (_from_template if templated else _from_text)(prompts, tokenizer)
    except Exception as error:  # templates raise what their authors chose, such as "System role not supported"
        if len(prompts) == 1:
            who, reason = "chat template" if templated else "tokenizer", " ".join(str(error).split())
            return [BadRow(f"the {who} refuses these messages: {reason[:200]}")]
    return [ids for prompt in prompts for ids in _ids_of([prompt], tokenizer, templated)]


def _from_text(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> Any:
    return tokenizer(["\n".join(message["content"] for message in prompt.messages) for prompt in prompts])["input_ids"]


def _from_template(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase) -> Any:
    """Tokenised by the template's own call: it adds no special tokens, so a BOS in the template stays single."""
    chats = [[dict(message) for message in prompt.messages] for prompt in prompts]
    options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, **_options(prompts[0])}
    made: Any = tokenizer.apply_chat_template(chats, **options)
    return made["input_ids"]


def _options(prompt: Prompt) -> dict[str, Any]:
    """What TRL's rows tell the template: a beginning of the answer is gone on with; tools; options of the template."""
    if not prompt.conversational:
        return {}
    options = dict(prompt.columns.get("chat_template_kwargs") or {})
    if prompt.columns.get("tools"):
        options["tools"] = prompt.columns["tools"]
    if prompt.messages[-1]["role"] == "assistant":
        options |= {"add_generation_prompt": False, "continue_final_message": True}
    return options


def _check_lengths(prompts: Sequence[Prompt], limit: int, flag: str) -> None:
    long = [prompt for prompt in prompts if len(prompt.token_ids) > limit]
    if long:
        longest = max(len(prompt.token_ids) for prompt in long)
        others = f" ({len(long) - 1} more are too long)" if len(long) > 1 else ""
        remedy = f"--prompt_max_len {longest} would admit all"
        raise Refused(f"{flag} {_place(long[0])}: {_too_long(long[0], limit)}{others}; {remedy}")


def _too_long(prompt: Prompt, limit: int) -> str:
    return f"{len(prompt.token_ids)} tokens, over --prompt_max_len {limit}"


def _place(prompt: Prompt) -> str:
    return prompt.where or f"prompt {prompt.id}"
