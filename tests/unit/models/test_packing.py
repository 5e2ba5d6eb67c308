"""When the samples of a prompt share its computation: costs and memory, by hand."""

from __future__ import annotations

import pytest
import torch

from lightrft.models.packing import LARGEST_MASK, Cost, groups_of, lay_out, sharing_pays

FREE = Cost(per_token=1.0, per_pair=0.0)


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


def pays(batch, cost):
    return sharing_pays(groups_of(batch), batch.input_ids.shape, cost)


def test_sharing_pays_where_it_costs_less(batch_of):
    """8 + 3 + 3 = 14 tokens in one row against 2 x 11, of which attention looks at half the pairs: 14 p + 196 q against
    22 p + 121 q, so it pays for q below 8 p / 75."""
    batch = grouped(batch_of, 3, 3, prompt=8)
    assert pays(batch, Cost(75.0, 7.99)) and not pays(batch, Cost(75.0, 8.01))


def test_the_mask_of_shared_prompts_has_a_largest_size(batch_of):
    """11,585 is the largest length whose square is within 2^27; two groups may have half of that each."""
    assert LARGEST_MASK == 2**27 and 11585**2 <= 2**27 < 11586**2
    assert pays(grouped(batch_of, 11582, 1), FREE)
    long = grouped(batch_of, 11582, 2)
    assert not pays(long, FREE)
    assert lay_out(long, FREE).inputs.keys() == {"input_ids"}, "padded rows, and no mask at all"
    two = long.filled(group=torch.tensor([0, 1]))
    assert not pays(two, FREE), "each group has the width of the longest"
    assert pays(grouped(batch_of, 8189, 1), FREE)


def test_the_mask_lets_a_token_see_its_prompt_and_its_own_response(batch_of):
    [[[*rows]]] = lay_out(grouped(batch_of, 2, 1), Cost(1e9, 0.0)).inputs["attention_mask"].int().tolist()
    assert rows == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 1]]


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


def test_a_part_of_shared_prompts_keeps_its_positions_and_the_whole_mask(batch_of):
    """5 + 2 + 1 tokens in one row of 8, of which two parts have four; the third response token sees the prompt."""
    whole = lay_out(grouped(batch_of, 2, 1, prompt=5), Cost(1e9, 0.0), parts=4)
    second = whole.part(2, 4)
    assert whole.inputs["input_ids"].shape == (1, 8) and second.inputs["attention_mask"].shape == (1, 1, 8, 8)
    assert whole.predicts.tolist() == [4, 5, 4]
    assert second.inputs["position_ids"].tolist() == [[4, 5]] and second.predicts.tolist() == [0, 1, 0]
    odd = lay_out(grouped(batch_of, 2, 1, prompt=5), Cost(1e9, 0.0), parts=3).inputs
    assert odd["input_ids"].shape == (1, 9) and odd["attention_mask"].any(-1).all(), "padding sees something"


def test_one_column_where_nothing_is_trained_is_padded_to_a_column_each(batch_of):
    layout = lay_out(batch_of([([5, 6, 7], [0, 0, 0])]), None, parts=2)
    assert layout.inputs["input_ids"].tolist() == [[5, 0]] and not len(layout.part(1, 2).predicts)
