"""From messages to token ids, once, at the start."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.prompts.bad_rows import BadRow, BadRows, origins
from lightrft.prompts.endings import closing_ids, ending_closed, taken_off, unclosed
from lightrft.prompts.remarks import lines, remarks
from lightrft.prompts.tags import opening_of
from lightrft.prompts.template import Template, begun_answer, is_whole, look_at, options_of
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
    ends: Collection[int] = (),
    placeholders: Collection[int] = (),
) -> list[Prompt]:
    """The prompts with `token_ids`, in the same order, without those that `bad` may skip; those with media as they are.

    `apply_chat_template`: True and False are taken at their word; None means "where the tokenizer has one". Without a
    template the messages' contents are joined by newlines and get the tokenizer's own special tokens, but none that
    ends the text (`ends`: the model's end tokens beside the tokenizer's). Nothing is ever truncated: a prompt of more
    than `prompt_max_len` tokens, or of none, is a bad row, and so is one with a token of `placeholders`, in whose place
    a model would look for an image. Raises `Refused`.
    """
    bad = bad or BadRows(flag)
    closing = closing_ids(tokenizer, ends)
    template = look_at(tokenizer, closing) if uses_template(tokenizer, apply_chat_template) else None
    writer = _Writer(tokenizer, template, closing, knows_whole=apply_chat_template is None)
    encoded = list(_encoded(prompts, writer, frozenset(placeholders), bad))
    texts = [prompt for prompt in encoded if not prompt.has_media]
    bad.notices += remarks(texts, tokenizer, template, knows_whole=writer.knows_whole)
    bad.notices += writer.told(texts)
    if not bad.skip:
        _check_lengths(encoded, prompt_max_len, bad.flag)
    kept = [prompt for prompt in encoded if len(prompt.token_ids) <= prompt_max_len]
    for prompt in encoded:
        if len(prompt.token_ids) > prompt_max_len:
            bad.add(prompt.origin, _place(prompt), _too_long(prompt, prompt_max_len))
    bad.settle(origins(prompts) - origins(kept))
    return kept


def uses_template(tokenizer: PreTrainedTokenizerBase, wanted: bool | None) -> bool:
    """Whether messages go through the tokenizer's chat template. Raises `Refused`."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if wanted and not has_template:
        where = f"the tokenizer of {tokenizer.name_or_path or '--pretrain'}"
        raise Refused(f"--apply_chat_template: {where} has no chat template; --no-apply_chat_template works")
    return has_template if wanted is None else wanted


def _encoded(
    prompts: Sequence[Prompt], writer: _Writer, placeholders: frozenset[int], bad: BadRows
) -> Iterator[Prompt]:
    for start in range(0, len(prompts), TOGETHER):
        part = prompts[start : start + TOGETHER]
        written = iter(writer.ids_of([prompt for prompt in part if not prompt.has_media]))
        for prompt in part:
            if prompt.has_media:
                yield prompt
                continue
            try:
                ids = _good(next(written), placeholders, writer.tokenizer)
            except BadRow as fault:
                bad.add(prompt.origin, _place(prompt), str(fault))
            else:
                opening = opening_of(writer.tokenizer, ids, begun_answer(prompt))
                yield replace(prompt, token_ids=ids, opening=opening)


def _good(
    ids: Sequence[int] | BadRow, placeholders: frozenset[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """Raises `BadRow`."""
    if isinstance(ids, BadRow):
        raise ids
    if not ids:
        raise BadRow("the prompt has no tokens; it needs some text")
    if held := placeholders.intersection(ids):
        mark = tokenizer.convert_ids_to_tokens(min(held))
        raise BadRow(f"its text holds {mark!r}, which stands for an image or a video, and the row has none")
    return tuple(ids)


@dataclass(frozen=True)
class _Writer:
    """template: what prompts are put into, None for none; closing: ids that end a text;
    knows_whole: but for texts that are in it already; taken_off: closing ids that were behind a prompt.
    """

    tokenizer: PreTrainedTokenizerBase
    template: Template | None
    closing: frozenset[int]
    knows_whole: bool
    taken_off: set[int] = field(default_factory=set)

    def ids_of(self, prompts: Sequence[Prompt]) -> Sequence[Sequence[int] | BadRow]:
        """One call for all of them where they can share it; where one is at fault, or has its own way, one by one."""
        with suppress(Exception):
            if len(prompts) > 1 and not any(map(self._goes_alone, prompts)):
                return self._written(prompts)
        return [self._ids_of_one(prompt) for prompt in prompts]

    def told(self, prompts: Sequence[Prompt]) -> list[str]:
        """Which end tokens were taken off prompts, and which prompts have one still."""
        who = "chat template" if self.template else "tokenizer"
        off: Any = self.tokenizer.convert_ids_to_tokens(sorted(self.taken_off))
        stays = "end in an end token and are left so: a model may take them for finished"
        return [
            *(taken_off(who, name) for name in off),
            *lines({stays: ending_closed(prompts, self.closing)}, len(prompts)),
        ]

    def _goes_alone(self, prompt: Prompt) -> bool:
        return self.template is not None and (bool(options_of(prompt)) or self._is_whole(prompt))

    def _is_whole(self, prompt: Prompt) -> bool:
        return self.knows_whole and self.template is not None and is_whole(prompt, self.template)

    def _ids_of_one(self, prompt: Prompt) -> Sequence[int] | BadRow:
        try:
            return self._written([prompt])[0]
        except BadRow as fault:
            return fault
        except Exception as error:  # templates raise what their authors chose, such as "System role not supported"
            who, reason = "chat template" if self.template else "tokenizer", " ".join(str(error).split())
            return BadRow(f"the {who} refuses these messages: {reason[:200]}")

    def _written(self, prompts: Sequence[Prompt]) -> list[Sequence[int]]:
        way = self._as_it_is if self._is_whole(prompts[0]) else self._in_template if self.template else self._as_text
        bos = self.tokenizer.bos_token_id  # a text may hold the one that is added
        return [ids[1:] if bos is not None and list(ids[:2]) == [bos, bos] else ids for ids in way(prompts)]

    def _as_text(self, prompts: Sequence[Prompt]) -> Any:
        texts = ["\n".join(message["content"] for message in prompt.messages) for prompt in prompts]
        made: Any = self.tokenizer(texts)["input_ids"]
        if not any(ids and ids[-1] in self.closing for ids in made):
            return made
        bare: Any = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return self._noted(made, [unclosed(ids, text, self.closing) for ids, text in zip(made, bare, strict=True)])

    def _as_it_is(self, prompts: Sequence[Prompt]) -> Any:
        """With the BOS that the template would have written, if the text has none."""
        made: Any = self.tokenizer([prompt.messages[0]["content"] for prompt in prompts], add_special_tokens=False)
        first = [self.tokenizer.bos_token_id] if self.template and self.template.own_bos else []
        return [ids if ids[:1] == first else [*first, *ids] for ids in made["input_ids"]]

    def _in_template(self, prompts: Sequence[Prompt]) -> Any:
        """Tokenised by the template's own call: it adds no special tokens, so a BOS in the template stays single."""
        chats = [[dict(message) for message in prompt.messages] for prompt in prompts]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, **options_of(prompts[0])}
        made: Any = self.tokenizer.apply_chat_template(chats, **options)
        last = self.template.closing if self.template and options["add_generation_prompt"] else None
        if last is None:
            return made["input_ids"]
        return self._noted(made["input_ids"], [ids[:-1] if ids[-1:] == [last] else ids for ids in made["input_ids"]])

    def _noted(self, made: Sequence[Sequence[int]], opened: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        self.taken_off.update(id for ids, kept in zip(made, opened, strict=True) for id in ids[len(kept) :])
        return opened


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
