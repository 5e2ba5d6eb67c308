"""The page that follows one sample through all rooms (docs/architecture.md) tells what happens: every number of it."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
from runs import BASE, ROOT

from lightrft.algorithms.functional import aggregate, token_weights
from lightrft.args import parse
from lightrft.build.trainer import build_trainer
from lightrft.preflight import check_inputs
from lightrft.update.counts import step_counts

PAGE = Path(ROOT, "docs", "architecture.md").read_text().partition("## Where one number goes")[2]
FLAGS = "--fsdp --max_steps 4 --train_batch_size 8 --init_kl_coef 0 --optimizer sgd --max_norm 0 --save_path run"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")
SAMPLE = 0  # the first of the first prompt


def told() -> dict[str, list[float]]:
    """What stands in the page: the first column of its block, and the numbers of the second."""
    block = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert block
    lines = [re.split(r" {2,}", line) for line in block[1].splitlines()]
    return {name: [float(number) for number in NUMBER.findall(values)] for name, values, *_ in lines}


def measured() -> dict[str, list[float]]:
    """One turn of the loop, stage by stage, as Trainer._turn takes them."""
    args = parse([*BASE.split(), *FLAGS.split()], world_size=1)
    run = build_trainer(args, check_inputs(args))
    run.placement.generate(0)
    rollouts = run.collector.collect(run.prompts, 1)
    rollout, group = rollouts[SAMPLE], [each.reward.total for each in rollouts[:4]]
    question = rollout.prompt.messages[-1]["content"]
    rollouts, index = run.dealer.deal(rollouts, 1)
    run.placement.score()
    batch = run.scorer.to_batch(rollouts, index, run.collector.temperature(1))
    batch, _ = run.advantages(batch)
    here = batch.response_mask[SAMPLE] == 1
    run.placement.learn()
    part = next(run.updater.partition(batch, 1))
    counts = step_counts(batch.index, part.rows, args.model.max_new_tokens)
    scored = run.updater.policy.logprobs(batch.select([SAMPLE]), entropy="value")
    terms = run.updater.loss(batch.select([SAMPLE]), scored)
    _, loss = terms.weighted["loss/policy"]
    run.updater.step(batch, part)
    learned = run.updater.report().metrics
    after = run.updater.policy.logprobs(batch.select([SAMPLE])).logprobs
    run.progress.advance()
    run.placement.generate(run.progress.step)
    mask, mode = batch.select([SAMPLE]).response_mask, run.updater.settings.aggregation
    share, weight = aggregate(loss, mask, mode, counts), token_weights(mask, mode, counts)
    found = {
        "prompt": [rollout.prompt.position, *re.findall(r"\d+", question), rollout.prompt.reference],
        "prompt_ids": rollout.prompt_ids,
        "response_ids": rollout.response_ids,
        "rollout_logprobs": rollout.rollout_logprobs,
        "response": [rollout.response],
        "reward": [rollout.reward.total],
        "group": group,
        "index": [SAMPLE, len(index), index.owner[SAMPLE], index.lengths[SAMPLE], index.trained[SAMPLE]],
        "old_logprobs": batch.old_logprobs[SAMPLE, here].tolist(),
        "advantages": [*batch.advantages[SAMPLE, here].tolist(), group[0], fmean(group), stdev(group)],
        "part": part.rows,
        "counts": [counts.tokens, counts.sequences, counts.rows, counts.groups],
        "loss": loss[mask == 1].tolist(),
        "weights": [weight.max(), 1, counts.sequences, index.trained[SAMPLE]],
        "share": [share.item()],
        "grad_norm": [learned["policy/grad_norm"]],
        "lr": [learned["policy/lr"]],
        "version": [run.placement.version, rollout.policy_version],
        "afterwards": after[0, after[0] != 0].tolist(),
    }
    run.close()
    return {name: [float(value) for value in values] for name, values in found.items()}


def test_the_page_tells_what_happens(here):
    page, run = told(), measured()
    assert page.keys() == run.keys()
    for name, values in run.items():
        # the tiny model is warmed up anew on each machine, which rounds otherwise; four digits stand in the page
        assert page[name] == pytest.approx(values, rel=1e-2, abs=1e-4), name
