"""`--replay_sampling_mask`: engine and trainer compare what the filters had left, and nothing else."""

from __future__ import annotations

import dataclasses

import own_weights
import pytest
from runs import rows, train

from lightrft import batch as batches
from lightrft.rollouts.engines import vllm

FLAGS = (
    "--fsdp --top_p 0.9 --temperature 1.2 --max_steps 3 --save_interval 0 --reward_fn shaped.py:length --quiet "
    "--train_batch_size 8 --actor_learning_rate 1e-2 --lr_warmup_steps 0 --save_path run"
)


def test_engine_and_trainer_agree_on_what_the_filters_left(here):
    plain = train(FLAGS)
    replayed = train(f"{FLAGS}/replayed --replay_sampling_mask")
    assert plain.code == replayed.code == 0, replayed.err
    print(rows(here / "run")[0], rows(here / "run/replayed")[0])
    for row in rows(here / "run/replayed"):
        assert row["mismatch/gap_max"] < 1e-4
