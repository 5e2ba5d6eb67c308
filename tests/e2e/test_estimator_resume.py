"""What changes by rule during a run goes on after a resume: KL coefficient, reward moments, temperature."""

from __future__ import annotations

import pytest
from runs import rows, train, weights

ADAPTED = """--fsdp --quiet --lr_scheduler constant --lr_warmup_steps 0 --save_steps 2 --eval_steps 2 --init_kl_coef
 0.1 --kl_target 0.5 --kl_horizon 64 --reward_running_norm --reward_running_norm_minus_mean
 --temperature_schedule cosine --reward_clip 2 --temperature_final 0.4 --temperature_schedule_steps 4
 --reward_fn shaped.py:length --train_batch_size 8"""


@pytest.mark.parametrize("estimator", ["reinforce", "cpgd"])
def test_an_interrupted_run_goes_on_where_it_was(here, estimator):
    flags = f"{' '.join(ADAPTED.split())} --advantage_estimator {estimator}"
    assert train(f"{flags} --save_path whole --max_steps 4").code == 0
    assert train(f"{flags} --save_path parts --max_steps 2").code == 0
    resumed = train(f"{flags} --save_path parts --max_steps 4 --load_checkpoint")
    assert resumed.code == 0, resumed.err
    assert rows(here / "parts") == rows(here / "whole")
    assert weights(here / "parts") == weights(here / "whole")
    names = ("rollout/temperature", "mismatch/gap_max")
    temperatures, gaps = ([row[name] for row in rows(here / "whole")] for name in names)
    assert len(set(temperatures)) == 4 and max(gaps) < 1e-5, "samples and log-probabilities have one temperature"
    place = {"reinforce": "reward", "cpgd": "drift"}[estimator]
    coefficients = [row[f"kl/coef_{place}"] for row in rows(here / "whole")]
    deviations = [row["reward/running_std"] for row in rows(here / "whole")]
    assert len(set(coefficients)) == len(set(deviations)) == 4, "both must change, or it shows nothing"


@pytest.mark.parametrize("before, after", [("0.1", "0"), ("0", "0.1")])
@pytest.mark.parametrize("estimator, place", [("reinforce", "reward"), ("group_norm", "loss")])
def test_a_resumed_run_takes_the_coefficient_that_its_flag_says(here, estimator, place, before, after):
    """With a reference model that the first half did not need, or without the one that it had."""
    flags = f"--fsdp --quiet --advantage_estimator {estimator} --save_path out --save_steps 1"
    assert train(f"{flags} --max_steps 1 --init_kl_coef {before}").code == 0
    resumed = train(f"{flags} --max_steps 2 --init_kl_coef {after} --load_checkpoint")
    assert resumed.code == 0, resumed.err
    first, second = rows(here / "out")
    assert (first[f"kl/coef_{place}"], second[f"kl/coef_{place}"]) == (float(before), float(after))
    assert ("kl/ref" in second) == (float(after) > 0)
