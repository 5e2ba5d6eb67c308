"""What `--print_args` says that a run is going to use is what the run's own recipe uses."""

from __future__ import annotations

import pytest

from lightrft.algorithms.estimator import load_estimator
from lightrft.args import parse
from lightrft.args.effective import effective
from lightrft.args.estimators import estimator_names
from lightrft.recipe import advantage_settings, aggregation, kl_term, temperature_schedule

BASE = "--pretrain tiny --prompt_data a.jsonl --reward_fn exact --save_path out "
BASE += "--rollout_batch_size 4 --train_batch_size 16"


@pytest.mark.parametrize("more", ["", "--init_kl_coef 0", "--temperature 0.7"])
@pytest.mark.parametrize("name", estimator_names())
def test_shown_as_used(name: str, more: str):
    args, estimator = parse(f"{BASE} --advantage_estimator {name} {more}".split()), load_estimator(name)
    kl = kl_term(args)
    assert effective(args, "loss_agg_mode")[0] == aggregation(args, estimator)
    assert effective(args, "advantages_norm")[0] == advantage_settings(args, estimator).whiten
    assert effective(args, "use_kl_loss")[0] == (kl.at("loss") > 0)
    assert effective(args, "kl_target")[0] == (kl.controller.target or 0)
    assert effective(args, "temperature_final")[0] == temperature_schedule(args, 10).final
