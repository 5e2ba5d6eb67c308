"""When the samples of a prompt share its computation: costs and memory, by hand."""

from __future__ import annotations

import pytest
import torch

from lightrft.models.packing import Cost, groups_of, lay_out, sharing_pays
from lightrft.models.segments import Segments, Tree

FREE = Cost(per_token=1.0, per_pair=0.0)
PAIRS = Cost(per_token=0.0, per_pair=1.0)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_costs_of_a_model(causal_model, kind):
    """Hidden size 32, two heads of 16 and one of keys and values, 48 between: what a layer multiplies a token with, and
    half of the last norm; scores and values of a pair take 32 each. Embeddings and head are no layer's."""
    attention, between, norms = 32 * 32 + 2 * 32 * 16 + 32 * 32, 3 * 32 * 48, 2 * 32
    biases = 32 + 2 * 16 if kind == "qwen2" else 0
    assert Cost.of(causal_model(kind)) == Cost(attention + between + norms + biases + 32 / 2, 64.0)


def grouped(batch_of, *responses, prompt=2):
    """One prompt of `prompt` tokens with a response of each length."""
    rows = [([5] * (prompt + length), [0] * prompt + [1] * length) for length in responses]
    return batch_of(rows, group=torch.zeros(len(rows), dtype=torch.long))


def trees_of(batch):
    return [group.tree for group in groups_of(batch)]


def pays(batch, cost):
    return sharing_pays(groups_of(batch), batch.input_ids.shape, cost)


def test_sharing_pays_where_it_costs_less(batch_of):
    """Of a prompt of 2, responses of 6, 1, 1 in rows of 8; and of a prompt of 1 one of 1. The groups' rows have 10 and
    2 tokens, so both 10: 20 against 4 x 8. Pairs: 8 x 8 / 2 + 1 x 2.5 + 1 x 2.5 + 2 x 2 / 2 = 39 against 4 x 32.
    """
    batch = grouped(batch_of, 6, 1, 1)
    assert pays(batch, FREE) and pays(batch, PAIRS)
    short = batch_of([([5] * 8, [0] * 2 + [1] * 6), *[([5] * 3, [0, 0, 1])] * 2, ([5, 5], [0, 1])])
    several = short.filled(group=torch.tensor([0, 0, 0, 1]))
    assert [tree.pairs for tree in trees_of(several)] == [37.0, 2.0]
    assert pays(several, FREE) and pays(several, PAIRS)


def test_sharing_does_not_pay_where_rows_would_be_padded_to_a_far_longer_one(batch_of):
    """A prompt of 1 with five responses of 4 is 21 tokens long, and so would be the rows of four others of 5: 5 x 21
    tokens against 9 x 5."""
    rows = [([5] * 5, [0, 1, 1, 1, 1])] * 9
    batch = batch_of(rows, group=torch.tensor([0] * 5 + [1, 2, 3, 4]))
    assert not pays(batch, FREE) and lay_out(batch, FREE).inputs["input_ids"].shape == (9, 5)
    assert lay_out(batch, FREE, packs=True).inputs["input_ids"].shape == (1, 21 + 4 * 5), "packed rows have no padding"


def test_a_row_holds_each_prompt_once_and_a_response_begins_at_the_prompts_end(batch_of):
    """Prompts of 2 and 1 tokens; responses of 2 and 1, and of 2."""
    rows = [([3, 4, 5, 6], [0, 0, 1, 1]), ([3, 4, 7], [0, 0, 1]), ([8, 9, 10], [0, 1, 1])]
    batch = batch_of(rows, group=torch.tensor([0, 0, 1]))
    packed = lay_out(batch, FREE, packs=True)
    assert packed.inputs["input_ids"].tolist() == [[3, 4, 5, 6, 7, 8, 9, 10]]
    assert packed.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2, 0, 1, 2]]
    assert packed.predicts.tolist() == [1, 2, 1, 5, 6]
    assert packed.segments == Segments(((Tree(2, (2, 1)), Tree(1, (2,))),), 8)
    apart = lay_out(batch, None, packs=True)
    assert apart.inputs["input_ids"].tolist() == [[3, 4, 5, 6, 3, 4, 7, 8, 9, 10]]
    assert apart.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]]
    assert apart.predicts.tolist() == [1, 2, 5, 7, 8]
    rows_apart = lay_out(batch, FREE)
    assert rows_apart.inputs["input_ids"].tolist() == [[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]]
    assert rows_apart.told["attention_mask"].tolist() == [[[[False]]]], "what looks at no segments sees nothing at all"


def test_a_part_has_its_columns_and_predicts_what_they_predict(batch_of):
    """Rows of 3 + 2 and 3 + 1 tokens of 5 columns, padded to 6 and cut into three: column 2 predicts the first token
    of each response, and column 3 the second."""
    batch = batch_of([([5, 6, 7, 8, 9], [0, 0, 0, 1, 1]), ([5, 6, 7, 8], [0, 0, 0, 1])])
    whole = lay_out(batch, None, parts=3)
    assert whole.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0], [5, 6, 7, 8, 0, 0]]
    assert whole.predicts.tolist() == [2, 3, 6 + 2]
    parts = [whole.part(number, 3) for number in range(3)]
    assert [part.inputs["input_ids"][0].tolist() for part in parts] == [[5, 6], [7, 8], [9, 0]]
    assert [part.inputs["position_ids"].tolist() for part in parts] == [[[0, 1]], [[2, 3]], [[4, 5]]]
    assert [part.predicts.tolist() for part in parts] == [[], [0, 1, 2], []]
    assert parts[1].here.tolist() == [True] * 3 and not any(parts[2].here.tolist())
    assert parts[1].own(torch.tensor([1, 2, 3])).tolist() == [1, 2, 3]


def test_a_part_of_shared_prompts_keeps_its_positions_and_the_whole_rows_segments(batch_of):
    """5 + 2 + 1 tokens in one row of 8, of which two parts have four; the third response token sees the prompt."""
    whole = lay_out(grouped(batch_of, 2, 1, prompt=5), Cost(1e9, 0.0), parts=4)
    second = whole.part(2, 4)
    assert whole.inputs["input_ids"].shape == (1, 8) and second.segments == whole.segments
    assert whole.predicts.tolist() == [4, 5, 4]
    assert second.inputs["position_ids"].tolist() == [[4, 5]] and second.predicts.tolist() == [0, 1, 0]
    odd = lay_out(grouped(batch_of, 2, 1, prompt=5), Cost(1e9, 0.0), parts=3)
    assert odd.inputs["input_ids"].shape == (1, 9) and odd.segments.width == 9


def test_one_column_where_nothing_is_trained_is_padded_to_a_column_each(batch_of):
    layout = lay_out(batch_of([([5, 6, 7], [0, 0, 0])]), None, parts=2)
    assert layout.inputs["input_ids"].tolist() == [[5, 0]] and not len(layout.part(1, 2).predicts)
