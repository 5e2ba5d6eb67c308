from __future__ import annotations

import math

import pytest
import torch

from lightrft import step_index
from lightrft.batch import collate
from lightrft.models.packing import Cost
from lightrft.models.token_model import TokenModel
from lightrft.strategy.base import Handle
from lightrft.update.partition import MicroBatchSize
from lightrft.update.score import Scorer

CPU = torch.device("cpu")


@pytest.fixture
def rollouts(make_rollout):
    made = [
        make_rollout([1, 5], [6, 7, 2], total=1.5, position=4, logprobs=[-0.5, -1.0, -1.5]),
        make_rollout([1, 5], [9], error="raised ValueError", position=4, logprobs=[-2.0]),
        make_rollout([1, 5, 8, 3], [6, 2], total=0.0, position=9, logprobs=[-3.0, -4.0]),
    ]
    return [*made, make_rollout([1], [4], position=7)]  # not rewarded


def index_of(rollouts):
    return step_index.index_of(step_index.facts_of(rollouts, 0), 0, 1)


def test_collate_by_hand(rollouts):
    batch = collate(rollouts, 0.7, CPU)
    assert batch.input_ids.tolist() == [[1, 5, 6, 7, 2, 0], [1, 5, 9, 0, 0, 0], [1, 5, 8, 3, 6, 2], [1, 4, 0, 0, 0, 0]]
    assert batch.lengths.tolist() == [5, 3, 6, 2]
    assert batch.response_mask.tolist() == [
        [0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0],
    ]  # fmt: skip
    # the log-probability of token t stands at t, as in the trainer's own
    assert batch.rollout_logprobs.tolist() == [
        [0, 0, -0.5, -1.0, -1.5, 0], [0, 0, -2.0, 0, 0, 0], [0, 0, 0, 0, -3.0, -4.0], [0, -0.5, 0, 0, 0, 0],
    ]  # fmt: skip
    assert [math.isnan(r) for r in batch.rewards.tolist()] == [False, True, False, True]
    assert batch.rewards[[0, 2]].tolist() == [1.5, 0.0] and batch.rewards.dtype == torch.float64
    assert batch.group.tolist() == [4, 4, 9, 7] and batch.prompt_lengths.tolist() == [2, 2, 4, 1]
    assert batch.temperature == 0.7 and not batch.has("old_logprobs") and not batch.has("advantages")


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("sharing", [None, Cost(per_token=1e9, per_pair=0.0)])
def test_old_and_reference_logprobs_are_the_models_own(causal_model, alone, rollouts, rows, sharing):
    models = [Handle(model, model) for model in (causal_model("llama"), causal_model("qwen2"))]
    scorer = Scorer(
        alone, *(TokenModel(model, sharing) for model in models), size=MicroBatchSize(rows), scores_policy=True
    )
    batch = scorer.to_batch(rollouts, index_of(rollouts), 0.7)
    plain = collate(rollouts, 0.7, CPU)
    with torch.no_grad():
        old, ref = (TokenModel(model).logprobs(plain).logprobs for model in models)
    # float32 logits of size 10 from matmuls of another shape: 1e-6 of the logit
    torch.testing.assert_close(batch.old_logprobs, old, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(batch.ref_logprobs, ref, rtol=1e-5, atol=1e-5)
    assert not batch.old_logprobs.requires_grad and (old - ref).abs().max() > 0.1


def test_on_policy_and_without_reference_nothing_is_scored(causal_model, alone, rollouts):
    def never(**inputs):
        raise AssertionError("the model was called")

    policy = TokenModel(Handle(never, causal_model("llama")))
    batch = Scorer(alone, policy, None, size=MicroBatchSize(2), scores_policy=False).to_batch(
        rollouts, index_of(rollouts), 1.0
    )
    assert not batch.has("old_logprobs") and not batch.has("ref_logprobs")


def test_the_entropy_is_scored_where_it_chooses_tokens(causal_model, alone, rollouts):
    policy = TokenModel(Handle(model := causal_model("llama"), model))
    batch = Scorer(alone, policy, None, size=MicroBatchSize(2), scores_policy=True, with_entropy=True).to_batch(
        rollouts, index_of(rollouts), 0.7
    )
    wanted = policy.logprobs(collate(rollouts, 0.7, CPU), entropy="value").entropy
    torch.testing.assert_close(batch.entropy, wanted, rtol=1e-5, atol=1e-5)  # float32 matmuls of another shape
    assert (
        not Scorer(alone, policy, None, size=MicroBatchSize(2), scores_policy=True)
        .to_batch(rollouts, index_of(rollouts), 0.7)
        .has("entropy")
    )


def test_truncated_responses_are_marked(make_rollout):
    made = [make_rollout([1], [5]), make_rollout([1], [5, 6], finish="length")]
    assert collate(made, 1.0, CPU).truncated.tolist() == [False, True]
