"""The text of a prompt with images or videos: what the model's processor writes its placeholders into."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.encoding import uses_template
from lightrft.prompts.endings import taken_off, unclosed
from lightrft.prompts.media.marks import joined, text_of, text_part, with_slices
from lightrft.prompts.remarks import WHOLE, lines
from lightrft.prompts.template import QUESTION, Template, is_whole, look_at, options_of
from lightrft.types import Prompt


def texts_of(processor: Any, closing: Collection[int], apply_chat_template: bool | None) -> Texts:
    """closing: ids that end a text. apply_chat_template: see `encode_prompts`. Raises `Refused`."""
    tokenizer = processor.tokenizer
    template = look_at(tokenizer, closing) if uses_template(tokenizer, apply_chat_template) else None
    return Texts(processor, template, frozenset(closing), knows_whole=apply_chat_template is None)


@dataclass(frozen=True)
class Texts:
    """As encoding.py writes a prompt without media: the fields are those of its writer."""

    processor: Any
    template: Template | None
    closing: frozenset[int]
    knows_whole: bool

    @property
    def bare(self) -> bool:
        """Without a template: the tokenizer adds its own special tokens."""
        return self.template is None

    def placed(self, prompt: Prompt) -> Prompt:
        """With its images where a text that is whole already holds their own marks, one for each, and no place else."""
        if not self._is_whole(prompt):
            return prompt
        content = prompt.messages[0]["content"]
        places = [part["type"] for part in content if part["type"] != "text"]
        marks = {kind: self.mark(kind) for kind in {*places}}
        first_text = [part["type"] for part in content].index("text")
        if first_text != len(places) or any(text_of(content).count(marks[k]) != places.count(k) for k in marks):
            return prompt
        own = re.split("(" + "|".join(map(re.escape, marks.values())) + ")", text_of(content))
        kinds = {mark: kind for kind, mark in marks.items()}
        parts = joined({"type": kinds[text]} if text in kinds else text_part(text) for text in own)
        return replace(prompt, messages=({**prompt.messages[0], "content": parts},))

    def text(self, prompt: Prompt, slices: Sequence[int] = ()) -> str:
        """slices: for each image of the prompt, how many of them it gave: a volume has several."""
        messages = list(with_slices(prompt.messages, slices))
        if self.template is None:
            return self._with_one_bos("\n".join(self._plain(message["content"]) for message in messages))
        if self._is_whole(prompt):
            return self._with_one_bos(self._as_it_is(messages[0]["content"], self.template))
        options = {"add_generation_prompt": True, **options_of(prompt)}
        end = self._end() if options["add_generation_prompt"] else ""
        return self._with_one_bos(self._in_template(messages, options).removesuffix(end))

    def ids(self, text: str) -> tuple[int, ...]:
        """With one mark for each image or video; without end tokens that nobody typed."""
        plain = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(unclosed(self.processor.tokenizer(text)["input_ids"], plain, self.closing) if self.bare else plain)

    def ends_added(self, text: str) -> int:
        """End tokens that the tokenizer sets behind the text."""
        made = self.processor.tokenizer(text, add_special_tokens=self.bare)["input_ids"]
        return len(made) - len(self.ids(text))

    def mark(self, kind: str) -> str:
        """What stands for an image or a video in a text, before the processor writes its placeholders there."""
        mark = self.mark_of(kind)
        if mark is None:
            raise BadRow(f"{type(self.processor).__name__} takes no {kind}s")
        return mark

    def mark_of(self, kind: str) -> str | None:
        """None where the processor takes no such media."""
        mark = getattr(self.processor, "boi_token", None) if kind == "image" else None
        return mark or getattr(self.processor, f"{kind}_token", None)

    def told(self, prompts: Sequence[Prompt]) -> list[str]:
        """What a user might not expect of these."""
        off = [taken_off("chat template", end)] if prompts and (end := self._end()) else []
        return [*lines({WHOLE: [prompt for prompt in prompts if self._is_whole(prompt)]}, len(prompts)), *off]

    def _is_whole(self, prompt: Prompt) -> bool:
        return self.knows_whole and self.template is not None and is_whole(prompt, self.template)

    def _end(self) -> str:
        """The end token that the template sets behind a prompt."""
        if self.template is None or self.template.closing is None:
            return ""
        return self.processor.tokenizer.convert_ids_to_tokens(self.template.closing)

    def _with_one_bos(self, text: str) -> str:
        """A text may hold the one that is added."""
        tokenizer = self.processor.tokenizer
        bos, first = tokenizer.bos_token_id, tokenizer(text, add_special_tokens=self.bare)["input_ids"][:2]
        return text.removeprefix(tokenizer.bos_token) if bos is not None and first == [bos, bos] else text

    def _plain(self, content: Any) -> str:
        if isinstance(content, str):
            return content
        return "".join(part["text"] if part["type"] == "text" else self.mark(part["type"]) for part in content)

    def _as_it_is(self, content: Any, template: Template) -> str:
        """Media stand where they stood, and those before the text at the beginning of its first user turn."""
        kinds = [part["type"] for part in content]
        marks = {kind: self._as_written(kind, content, template) for kind in {*kinds} - {"text"}}
        written = [part["text"] if part["type"] == "text" else marks[part["type"]] for part in content]
        first = kinds.index("text")
        text = "".join(written[first:])
        bos = "" if text.startswith(template.own_bos) else template.own_bos
        place = template.question_in(text)
        return bos + text[:place] + "".join(written[:first]) + text[place:]

    def _as_written(self, kind: str, content: Any, template: Template) -> str:
        """The mark with what the template sets around it, unless the text has that itself."""
        asked = [{"role": "user", "content": [{"type": kind}, {"type": "text", "text": QUESTION}]}]
        written = self._in_template(asked, {}).partition(QUESTION)[0].removeprefix(template.before).strip()
        mark = self.mark(kind)
        before = written.partition(mark)[0]
        return mark if mark not in written or (before and before in text_of(content)) else written

    def _in_template(self, messages: Any, options: Mapping[str, Any]) -> str:
        try:
            return self.processor.tokenizer.apply_chat_template(messages, tokenize=False, **options)
        except Exception as error:  # templates raise what their authors chose
            raise BadRow(f"the chat template refuses these messages: {' '.join(str(error).split())[:200]}") from error
