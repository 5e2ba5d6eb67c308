from __future__ import annotations

import pytest
import torch

from lightrft.batch import collate
from lightrft.sync.texts import Texts, was_encoded_again
from lightrft.types import Prompt, Rollout

LIMIT = 1e-3


class Tokenizer:
    """A letter is its place in the alphabet; "ab" may be read as 27. 0 opens every text that is encoded as special."""

    bos_token_id, bos_token = 0, "<s>"

    def decode(self, ids, skip_special_tokens, **_):
        kept = [id for id in ids if id or not skip_special_tokens]
        return "".join({0: "<s>", 27: "ab"}.get(id) or chr(96 + id) for id in kept)

    def encode(self, text, add_special_tokens):
        read, text = [0] * add_special_tokens, text.replace("<s>", "^")
        return read + [{"^": 0, "A": 27}.get(c, ord(c) - 96) for c in text.replace("ab", "A")]


def row(*prompt):
    rollout = Rollout(Prompt("p", ()), 0, prompt, (5, 6), "", (1, 1), (-0.5, -0.25), "stop", 0)
    return collate([rollout], 1.0, torch.device("cpu"))


def test_the_ways_in_which_a_prompt_may_have_become_other_ids():
    ways = {name: set() for name, _ in Texts(Tokenizer(), 99).ways()}
    for name, encode in Texts(Tokenizer(), 99).ways():
        ways[name].add(tuple(encode([0, 1, 2, 3])))
    assert ways == {
        "encoded again": {(0, 27, 3), (0, 0, 27, 3)},
        "encoded again without their special tokens": {(27, 3), (0, 27, 3)},
        "opened by one more <s>": {(0, 0, 1, 2, 3)},
        "without their <s>": {(1, 2, 3)},
    }


def test_a_row_gets_another_prompt_and_keeps_its_response():
    given = row(0, 1, 2, 3)
    found = Texts(Tokenizer(), 99).with_prompt(given, lambda ids: [27, *ids[3:]])
    assert found.input_ids.tolist() == [[27, 3, 5, 6]] and found.response_mask.tolist() == [[0, 0, 1, 1]]
    assert found.rollout_logprobs.tolist() == [[0, 0, -0.5, -0.25]]
    assert (found.lengths.tolist(), found.prompt_lengths.tolist()) == ([4], [2])


@pytest.mark.parametrize("ids", [[1, 2], [], [0, 1, 2, 3, 4]])
def test_it_stays_as_it_is_where_nothing_changes_or_it_cannot_be_read(ids):
    given = row(1, 2)
    assert Texts(Tokenizer(), 6).with_prompt(given, lambda _: ids) is given


AGREE, OFF = 1e-6, 1.5


@pytest.mark.parametrize(
    ("gaps", "engine", "wanted"),
    [
        ([AGREE, AGREE, AGREE], [-1, -1, -1], None),
        ([AGREE, OFF, OFF], [-1, -1, -1], True),
        ([AGREE, OFF, OFF], [-1e-4, -1, -1], False),  # a token that is certain agrees under any weights
        ([OFF, OFF, OFF], [-1, -1, -1], False),
        ([AGREE, OFF, AGREE, AGREE], [-1] * 4, False),
        ([AGREE, 0.01, 0.01], [-1, -1, -1], False),  # stale by little
        ([AGREE, OFF, OFF, OFF, OFF, AGREE], [-1] * 6, True),  # one of five by chance
    ],
)
def test_a_response_that_was_encoded_again_agrees_up_to_a_place(gaps, engine, wanted):
    assert was_encoded_again(gaps, engine, LIMIT) is wanted
