"""A tokenizer's chat template: what it writes around a turn, what a row may set, and which texts are in it already."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.chats import from_json
from lightrft.prompts.media.marks import text_of
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION, ANSWER, NEXT = "What is 2 + 3?", "It is 5.", "And 3 + 4?"
BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
OURS = {  # parameters of the library's call, not of a template: a row that set `truncation` would have prompts cut
    *("conversation", "tokenize", "tokenizer_kwargs", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask"),
}


@dataclass(frozen=True)
class Template:
    """bos: the tokenizer's, or none; before, after: what stands around the text of a single user turn; turn: the end
    of `before` that stands before later user turns too; answers: what stands before an answer's text and is not written
    for a prompt; markers: the added tokens among them, and BOS; closing: id of an end token that stands behind `after`
    and not where an answer comes, or none.
    """

    bos: str = ""
    before: str = ""
    after: str = ""
    turn: str = ""
    answers: str = ""
    markers: tuple[str, ...] = ()
    closing: int | None = None

    def is_around(self, text: str) -> bool:
        """Whether a text is a whole prompt already: it begins as the template does, and a turn ends in it; or it ends
        as a prompt in the template does, and a user turn begins in it.
        """
        text, opening = text.lstrip(), self.before.removeprefix(self.bos).strip()
        ends = sorted((marker for marker in self.markers if marker in self.after), key=self.after.find)
        end = ends[0] if ends else self.after.strip()
        begins = text.startswith(self.markers) or bool(_has_letters(opening) and text.startswith(opening))
        return bool(begins and _has_letters(end) and end in text) or (self.ends(text) and self.question_in(text) > 0)

    def ends(self, text: str) -> bool:
        """Whether the text ends as a prompt in the template does, where that is more than signs."""
        return _has_letters(self.after) and text.rstrip().endswith(self.after.strip())

    def question_in(self, text: str) -> int:
        """Where the first user turn's own text begins in a whole prompt; 0 where no turn begins, not inside a word."""
        turn = re.search(rf"(?<!\w){re.escape(self.turn)}\s*", text) if _has_letters(self.turn) else None
        return turn.end() if turn else 0

    @property
    def own_bos(self) -> str:
        """The BOS that it writes itself."""
        return self.bos if self.before.startswith(self.bos) else ""


def _has_letters(text: str) -> bool:
    """Signs alone, such as brackets, occur in any text."""
    return any(map(str.isalpha, text))


def look_at(tokenizer: PreTrainedTokenizerBase, ends: Collection[int] = ()) -> Template:
    """The template of the tokenizer, from what it makes of one question; an empty one where that shows nothing."""
    question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}

    def written(*turns: dict[str, str], ask: bool) -> str:
        made: Any = tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=ask)
        return made

    try:
        asked, plain = written(question, ask=True), written(question, ask=False)
        whole = written(question, answer, ask=False)
    except Exception:  # what its author chose; each prompt is tried by itself
        return Template()
    closing, end = _closing(tokenizer, asked, whole, ends)
    asked, plain = asked.removesuffix(end), plain.removesuffix(end)
    before, question_in_it, after = asked.partition(QUESTION)
    if not question_in_it:
        return Template()
    added: Any = sorted(tokenizer.get_added_vocab(), key=asked.find)  # pyright: ignore
    bos = str(tokenizer.bos_token or "")
    markers = [token for token in added if token in asked or token == bos]
    asks_for_no_answer = whole.startswith(asked) and asked == plain and ANSWER in whole
    answers = whole[len(asked) :].partition(ANSWER)[0].strip() if asks_for_no_answer else ""
    turn = _turn(tokenizer, before.removeprefix(bos))
    return Template(bos, before, after, turn, answers, tuple(markers), closing)


def _closing(
    tokenizer: PreTrainedTokenizerBase, asked: str, whole: str, ends: Collection[int]
) -> tuple[int | None, str]:
    """The end token behind a prompt, and its text. None where answers come behind it: then it ends each turn."""
    names: Any = {token: tokenizer.convert_ids_to_tokens(token) for token in ends}
    behind = [(token, name) for token, name in names.items() if name and asked.endswith(name)]
    return behind[0] if behind and not whole.startswith(asked) else (None, "")


def _turn(tokenizer: PreTrainedTokenizerBase, before: str) -> str:
    """The longest end of `before` that the template writes before the next question too; "" if it allows no next."""
    texts = (("user", QUESTION), ("assistant", ANSWER), ("user", NEXT))
    try:
        chat = [{"role": role, "content": text} for role, text in texts]
        made: Any = tokenizer.apply_chat_template(chat, tokenize=False)
    except Exception:  # what its author chose
        return ""
    between = made.partition(ANSWER)[2].partition(NEXT)[0]
    return commonprefix([before[::-1], between[::-1]])[::-1].strip()


def options_of(prompt: Prompt) -> dict[str, Any]:
    """Options of the template that a row sets, TRL's way: its own; tools; and that a begun answer goes on.

    Tools and options may be JSON text. An option that is the text `true` or `false`, as tables may have it, is that
    boolean: a template takes either text for true. Raises `BadRow`.
    """
    options = from_json(prompt.columns.get("chat_template_kwargs")) or {}
    if not isinstance(options, dict):
        raise BadRow("'chat_template_kwargs' is neither an object nor JSON text of one")
    if taken := sorted(OURS & options.keys()):
        raise BadRow(f"'chat_template_kwargs' sets {taken[0]!r}, which is no option of a template; leave it out")
    options = {name: BOOLEANS.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    if tools := _tools(prompt.columns.get("tools")):
        options = {**options, "tools": tools}
    if prompt.messages[-1]["role"] == "assistant":
        options = {**options, "add_generation_prompt": False, "continue_final_message": True}
    return options


def _tools(column: Any) -> list[Any]:
    tools = from_json(column) or []
    tools = [tools] if isinstance(tools, dict) and ("function" in tools or "name" in tools) else tools
    tools = [from_json(tool) for tool in tools] if isinstance(tools, list) else tools
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadRow("'tools' is neither a list of objects nor JSON text of one")
    return tools


def is_whole(prompt: Prompt, template: Template) -> bool:
    """Whether the row was a text that is in the template already."""
    one_text = not prompt.conversational and len(prompt.messages) == 1
    return one_text and template.is_around(text_of(prompt.messages[0]["content"]))


def begun_answer(prompt: Prompt) -> str | None:
    """The text of an assistant's turn at its end, which the model goes on with; None where there is none."""
    last = prompt.messages[-1]
    return text_of(last["content"]) if last["role"] == "assistant" else None
