"""Which parts of a model FSDP2 shards on their own."""

from __future__ import annotations

import policies
import pytest
from policies import arguments, largest_difference, named, own_strategy, plain_steps, settings, small_model
from torch import nn
from torch.distributed.fsdp import FSDPModule

from lightrft.strategy.base import OptimArgs

SGD = OptimArgs("sgd", 1.0, (0.9, 0.99), 1e-8, 0.0, 0.0, "constant", warmup_steps=0, total_steps=10)


def units(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, FSDPModule)]


def prepared(world, model: nn.Module) -> list[str]:
    own_strategy(arguments("--fsdp"), world).prepare(model, SGD)
    return units(model)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]), nn.Linear(2, 2)


class Model(nn.Module):
    """Blocks with a list inside, a shorter list that is larger than one block, and a list of several classes."""

    def __init__(self, container: type = nn.ModuleList) -> None:
        super().__init__()
        blocks = [Block() for _ in range(6)]
        self.blocks = container(blocks) if container is nn.ModuleList else container(*blocks)
        self.heads = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.mixed = nn.ModuleList([nn.Linear(40, 40), nn.ReLU()])


@pytest.mark.parametrize("container", (nn.ModuleList, nn.Sequential))
def test_repeated_layers_are_found_where_none_are_declared(world, capsys, container):
    assert prepared(world, Model(container)) == ["", *(f"blocks.{i}" for i in range(6))]
    assert capsys.readouterr().err == ""


def test_declared_layers_may_lie_in_each_other(world):
    model = Model()
    model._no_split_modules = ["Block", "Linear"]
    assert {"", "blocks.0", "blocks.0.inner.1", "heads.1"} < set(prepared(world, model))


def test_a_model_of_one_piece_is_told(world, capsys):
    assert prepared(world, nn.Linear(2, 2)) == [""]
    assert capsys.readouterr().err.startswith("warning: --fsdp: Linear has no repeated layers")


@pytest.mark.parametrize("declared", (None, [], ["OfAnotherModel"]))
def test_a_model_without_declared_layers_takes_the_plain_step(rollouts, samples, trained, monkeypatch, declared):
    def silent(seed: int = 0):
        model = small_model(seed)
        model._no_split_modules = declared
        return model

    monkeypatch.setattr(policies, "small_model", silent)
    run, model = trained("--fsdp --micro_train_batch_size 4"), small_model()
    assert units(run.policy.model) == ["", "model.layers.0", "model.layers.1"]
    batch = run.batch(rollouts)
    plain_steps(model, samples, settings(), run.updater.partition(batch, 1), learning_rate=1.0)
    run.learn(batch)
    assert largest_difference(run.parameters(), named(model)) < 1e-6


def test_stage_3_makes_room_for_no_more_than_the_model(world):
    """DeepSpeed's own bucket is two gigabytes in float32, for a model of any size."""
    model = small_model()
    handle = own_strategy(arguments("--zero_stage 3"), world).prepare(model, SGD)
    assert handle.optimizer.reduce_bucket_size == sum(parameter.ds_numel for parameter in model.parameters())
