"""`--replay_sampling_mask`: engine, policy and reference are compared on what the filters had left."""

from __future__ import annotations

import own_weights
import pytest
from runs import rows, train

from lightrft.models import token_model

FLAGS = (
    "--fsdp --temperature 1.2 --max_steps 3 --save_interval 0 --reward_fn shaped.py:length --train_batch_size 8 "
    "--actor_learning_rate 1e-2 --lr_warmup_steps 0 --engine_type local"
)


def gaps(ended, folder):
    assert ended.code == 0, ended.err
    return [row["mismatch/gap_max"] for row in rows(folder)]


@pytest.mark.parametrize("filters", ["--top_p 0.9", "--top_p 1 --top_k 4 --use_fire", "--top_p 1 --min_p 0.1"])
def test_engine_and_trainer_agree_on_what_the_filters_left(here, monkeypatch, filters):
    """Of one side alone that is seen at once."""
    replayed = train(f"{FLAGS} {filters} --replay_sampling_mask --save_path replayed")
    assert max(gaps(replayed, here / "replayed")) < 1e-5  # float32
    assert "trained on log-probabilities of what that keeps (--replay_sampling_mask)\n" in replayed.out
    assert "warning" not in replayed.out
    monkeypatch.setattr(token_model, "_sets", lambda batch, layout: None)
    assert min(gaps(train(f"{FLAGS} {filters} --replay_sampling_mask --save_path one"), here / "one")) > 0.05


class Unfiltered(own_weights.Untempered):
    """Reports log-probabilities from before the filters, beside what these left."""

    def told(self, generation, sampling):
        whole = own_weights.replace(sampling, top_p=1.0)
        return own_weights.replace(generation, logprobs=tuple(self.scored(generation, whole)))


@pytest.mark.parametrize(("fault", "named"), [(Unfiltered, "filters"), (own_weights.Lukewarm, "temperature")])
def test_an_engine_that_reports_something_else_is_named(here, monkeypatch, fault, named):
    monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", fault)
    ended = train(f"{FLAGS} --top_p 0.9 --replay_sampling_mask --save_path run --actor_learning_rate 1e-4")
    assert ended.code == 0, ended.err
    [line] = [line for line in ended.out.splitlines() if line.startswith("warning: ")]
    assert line.startswith(f"warning: step 2: {named}:")
