"""float16's dynamic loss scale, on a CPU that DeepSpeed is told to take for able: which skips are its search."""

from __future__ import annotations

import pytest
import torch
from deepspeed.accelerator import get_accelerator
from policies import small_model

from lightrft.errors import RunFailed
from lightrft.strategy.base import OptimArgs, Precision
from lightrft.strategy.deepspeed import DeepSpeedStrategy
from lightrft.update.health import Skips
from lightrft.update.metrics import MetricSums

OPTIM = OptimArgs("sgd", 1e-3, (0.9, 0.999), 1e-8, 0.0, 1.0, "constant", 0, 100)


@pytest.mark.parametrize("stage", [1, 3])
def test_a_gradient_that_no_scale_helps_ends_the_run_after_the_search(world, monkeypatch, stage):
    """The scale starts at 2^16, stays for the first skip, and is halved 16 times; ten skips in a row that were no
    search end the run, and not DeepSpeed at its smallest scale."""
    able = type(get_accelerator())
    monkeypatch.setattr(able, "is_fp16_supported", lambda self: True)
    monkeypatch.setattr(able, "supported_dtypes", lambda self: [torch.float32, torch.float16])
    strategy = DeepSpeedStrategy(world, Precision("fp16"), stage)
    handle, skips, found = strategy.prepare(small_model().half(), OPTIM), Skips("policy", "--x"), []
    with pytest.raises(RunFailed, match="step 26: 10 optimizer steps of the policy in a row were skipped, from step 1"):
        for step in range(1, 99):
            logits = handle.module(input_ids=torch.tensor([[1, 2, 3]])).logits
            strategy.backward(handle, logits.float().sum() * torch.nan, last=True)
            found.append(strategy.step(handle))
            failure = skips.note(found[-1], step, MetricSums(), strategy.ranks)
            if failure is not None:
                raise failure
    assert all(report.skipped for report in found)
    assert [report.scaling for report in found] == [False, *[True] * 16, *[False] * 9]
