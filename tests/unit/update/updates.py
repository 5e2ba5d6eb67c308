"""The updater over the batch of `conftest.py`, and the loss of that written out over the whole part at once."""

from __future__ import annotations

import copy
from threading import Barrier
from types import SimpleNamespace

import torch

from lightrft.algorithms.control import KLController
from lightrft.algorithms.estimator import load_estimator
from lightrft.args.groups.algorithm import AlgorithmArgs
from lightrft.models.token_model import TokenModel
from lightrft.strategy.base import Handle
from lightrft.update.kl import KLTerm
from lightrft.update.partition import Part
from lightrft.update.step import Updater, UpdateSettings

MODES = ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm", "prompt-mean-token-mean"]
LENGTHS, GROUPS = [4, 1, 3, 2, 6, 0, 5, 1], [0, 0, 0, 1, 1, 1, 2, 2]
ADVANTAGES = [1.0, -0.5, 0.0, 2.0, -1.0, 1.0, -2.0, 0.0]
PART = Part(tuple(range(8)), 0)
OFF = KLTerm("off", KLController(0.0))


def full_logprobs(model, batch):
    """[B, T] from a log_softmax over all positions."""
    logits = model(input_ids=batch.input_ids).logits.float() / batch.temperature
    picked = logits.log_softmax(-1)[:, :-1].gather(-1, batch.input_ids[:, 1:, None])[..., 0].double()
    return torch.cat([torch.zeros(len(batch), 1), picked], 1)


def written_out(model, batch, mode, kl_coef):
    """The loss of the part by its definition, row by row."""
    logprobs = full_logprobs(model, batch)
    per_row, total = [], logprobs.sum() * 0
    for row in range(len(batch)):
        at = batch.response_mask[row].bool()
        ratio = (logprobs[row, at] - batch.old_logprobs[row, at]).exp()
        a = batch.advantages[row, at]
        loss = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.3) * a)
        d = logprobs[row, at] - batch.ref_logprobs[row, at]
        per_row.append(loss + kl_coef * ((-d).exp() - 1 + d))
    for row, loss in enumerate(per_row):
        n = max(len(loss), 1)
        group = sum(LENGTHS[other] for other in range(8) if GROUPS[other] == GROUPS[row])
        share = {
            "token-mean": 1 / sum(LENGTHS),
            "seq-mean-token-sum": 1 / 7,
            "seq-mean-token-mean": 1 / (7 * n),
            "seq-mean-token-sum-norm": 1 / (8 * 16),
            "prompt-mean-token-mean": 1 / (3 * group),
        }[mode]
        total = total + share * loss.sum()
    return total


def gradient(model):
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def updater(
    strategy,
    model,
    *,
    micro=2,
    mode=MODES[2],
    kl=OFF,
    sharing=None,
    part_size=8,
    name="group_norm",
    fire=False,
    chunk=None,
    **flags,
):
    settings = UpdateSettings(
        algorithm=AlgorithmArgs(**{"is_correction": "off", **flags}), aggregation=mode, seed=0,
        max_epochs=1, max_new_tokens=16,
        batch=SimpleNamespace(
            train_batch_size=part_size, micro_train_batch_size=micro, max_tokens_per_micro_batch=None
        ), fire=fire,
    )  # fmt: skip
    return Updater(strategy, TokenModel(Handle(model, model), sharing, chunk=chunk), load_estimator(name), kl, settings)


def counters(report):
    return {kind: report.metrics[f"update/{kind}_steps"] for kind in ("optimizer", "idle", "skipped")}


def in_loss(coefficient):
    return KLTerm("loss", KLController(coefficient))


class Together:
    """Threads of this process as ranks: what one gathers or reduces waits for the others."""

    def __init__(self, size):
        self.barrier, self.slots = Barrier(size, timeout=60), [None] * size

    def exchange(self, rank, mine):
        self.slots[rank] = mine
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found


def of_rank(alone, rank, together):
    """A strategy like `alone`, of one rank of several."""

    def reduce(values, op="sum"):
        shares = together.exchange(rank, dict(values))
        assert all(list(share) == list(values) for share in shares), "all ranks reduce the same, in one order"
        return {name: (sum if op == "sum" else max)(share[name] for share in shares) for name in values}

    def gather(items):
        return [item for share in together.exchange(rank, list(items)) for item in share]

    made = copy.copy(alone)
    made.losses, made.ranks = [], SimpleNamespace(rank=rank, size=2, reduce=reduce, gather=gather)
    return made
