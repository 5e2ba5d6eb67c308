"""Gradients and AdamW's steps of every strategy on one to three ranks are those of a plain float32 loop on one."""

from __future__ import annotations

from functools import cache, partial

import plain
import pytest
import torch
from launch import launch
from matrix import ADAM_RATE, BETA, DECAY, EPSILON, MAX_NORM, RANKS, Case, Found, Setting, cases, measure, samples_of
from plain_critic import PlainCritic, plain_turn
from policies import (
    arguments,
    largest_difference,
    make_samples,
    rounded_model,
    save_critic,
    settings,
    small_model,
    with_lora_of_peft,
)
from ranks import MODELS
from test_precision import GRADIENT_ERROR, distance, length

from lightrft.update.partition import Part, draw_parts

FLOAT32, BF16 = GRADIENT_ERROR["fp32"], GRADIENT_ERROR["bf16"]
BF16_STEPS = 0.05  # of the way that AdamW goes; Adam divides the gradient's error by moments that have it too
ALL = [(ranks, case) for ranks in RANKS for case in cases(ranks)]
each_case = pytest.mark.parametrize(("ranks", "case"), ALL, ids=lambda value: str(value))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_critic(tmp_path_factory.mktemp("critic"))


@pytest.fixture(scope="module")
def found(world, folder, tmp_path_factory):
    """(ranks, case) -> what it gave: one process is this one, several are launched once for all cases."""

    @cache
    def launched(ranks: int) -> dict:
        out = tmp_path_factory.mktemp("matrix") / "found.pt"
        launch("matrix.py", ranks, out, folder, seconds=900)  # two minutes where nothing else runs
        return torch.load(out)

    @cache
    def of(ranks: int, case: Case) -> Found:
        return measure(case, str(folder)) if ranks == 1 else Found(**launched(ranks)[str(case)])

    return of


@pytest.fixture(scope="module")
def wanted(folder):
    """setting -> the plain loop's gradients and parameters."""
    return cache(lambda setting: plain_found(setting, folder))


def plain_found(setting: Setting, folder) -> Found:
    models, samples = plain_models(setting, folder), samples_of(setting)
    learn(setting, models, samples, [Part(tuple(range(len(samples))), 0)], plain.clipped_gradient)
    gradients = {
        name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in everything(setting, models).items()
    }
    models = plain_models(setting, folder)
    optimizers = {id(m): torch.optim.AdamW(m.parameters(), ADAM_RATE, (0.9, 0.95), EPSILON, DECAY) for m in models}

    average = {name: p.detach().clone() for name, p in named(models[0])}

    def step(model, loss) -> float:
        norm = plain.clipped_gradient(model, loss, MAX_NORM)
        assert norm > MAX_NORM, "the gradient must be long enough to be clipped"
        optimizers[id(model)].step()
        for name, p in named(models[0]):
            average[name] = BETA * average[name] + (1 - BETA) * p.detach()
        return norm

    parts = list(draw_parts(12, 4, 2, seed=arguments().training.seed, turn=1))
    learn(setting, models, make_samples(), parts, step)
    averaged = {f"average.{name}": value for name, value in average.items()} if "EMA" in setting.name else {}
    return Found({1: gradients}, {name: p.detach() for name, p in everything(setting, models).items()} | averaged)


def plain_models(setting: Setting, folder) -> list:
    adapted = partial(with_lora_of_peft, in_4_bits=setting.in_4_bits)
    policy = adapted(**MODELS[setting.model]) if setting.has_lora else setting.make()
    return [policy, *([PlainCritic(folder)] if "gae" in setting.flags else [])]


def everything(setting: Setting, models) -> dict:
    """What the trainer's models hold too; weights in 4 bits are no tensors of theirs."""
    kinds = zip(("policy", "critic"), models, strict=False)
    found = {f"{kind}.{name}": p for kind, model in kinds for name, p in named(model)}
    in_4_bits = ("_proj.weight", "_proj.base_layer.weight") if setting.in_4_bits else ()
    return {name: p for name, p in found.items() if not name.endswith(in_4_bits)}


def named(model):
    """Parameters by the names that they have in a run: PEFT puts two words before them."""
    return ((name.removeprefix("base_model.model."), p) for name, p in model.named_parameters())


def learn(setting: Setting, models, samples, parts, step) -> None:
    """One turn of the loop, row by row; `step` is of a model and its loss."""
    if len(models) == 2:
        plain_turn(*models, small_model(), samples, parts, beta=0.0, step_policy=step, step_critic=step)
        return
    (model,), more, scale = models, {}, plain.advantages(samples)
    with torch.no_grad():
        if len(parts) > 1:
            more["old"] = [plain.logprobs(model, sample, 0.8) for sample in samples]
        if "--init_kl_coef" in setting.flags:
            without = rounded_model if setting.in_4_bits else small_model
            reference = without() if setting.has_lora else setting.make(setting.reference_seed)
            more["reference"] = [plain.logprobs(reference, sample, 0.8) for sample in samples]
            more["kl_coef"] = 0.05
    loss = settings(**more)
    for part in parts:
        step(model, loss(model, samples, scale, part.rows))


def by_kind(tensors: dict) -> dict[str, dict]:
    kinds = dict.fromkeys(name.partition(".")[0] for name in tensors)
    return {kind: {name: v for name, v in tensors.items() if name.startswith(f"{kind}.")} for kind in kinds}


@each_case
def test_gradients_are_the_plain_ones(ranks, case, found, wanted):
    """Of each model as a whole, relative to its length; in bfloat16 with each row alone as with all together."""
    for kind, exact in by_kind(wanted(case.setting).gradients[1]).items():
        gradients = found(ranks, case).gradients.values()
        errors = [distance(by_kind(gradient)[kind], exact) / length(exact) for gradient in gradients]
        assert max(errors) < (BF16 if case.setting.half else FLOAT32)
        assert errors[0] <= 1.1 * errors[-1]


@each_case
def test_steps_of_adamw_are_the_plain_ones(ranks, case, found, wanted, folder):
    stepped, exact = found(ranks, case).stepped, wanted(case.setting).stepped
    if case.setting.half:
        start = {name: p.detach() for name, p in everything(case.setting, plain_models(case.setting, folder)).items()}
        bound = BF16_STEPS * (4 if case.setting.has_lora else 1)  # few numbers, whose moments are mostly rounding
        assert distance(stepped, exact) < bound * distance(exact, start)
    else:
        assert largest_difference(stepped, exact) < 1e-6
