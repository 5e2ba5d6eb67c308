"""oneDNN's products of linear layers are torch's, in both directions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import linear as torch_linear

from lightrft.models import products
from lightrft.models.products import LEAST, OneDNNLinear, linear, multiply_by_onednn, product

CPU = torch.device("cpu")


def draw(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def found(product, inputs, weight, bias=None) -> list[torch.Tensor]:
    """The output, and the gradients of a sum that weighs each of its entries otherwise."""
    leaves = [leaf.clone().requires_grad_() for leaf in (inputs, weight, bias) if leaf is not None]
    output = product(*leaves)
    (output * draw(*output.shape, seed=9, dtype=output.dtype)).sum().backward()
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def errors(left, right) -> list[float]:
    return [float((one.double() - other).norm() / other.norm()) for one, other in zip(left, right, strict=True)]


@pytest.mark.parametrize("rows", [(37,), (2, 5), (1,)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_outputs_and_gradients_are_those_of_float64(rows, with_bias, monkeypatch):
    asked = []
    own = products._product
    monkeypatch.setattr(products, "_product", lambda *given: asked.append(1) or own(*given))
    weight, inputs, bias = draw(260, 256), draw(*rows, 256, seed=1), draw(260, seed=2) if with_bias else None
    assert weight.numel() >= LEAST
    exact = found(torch_linear, *(None if value is None else value.double() for value in (inputs, weight, bias)))
    assert max(errors(found(linear, inputs, weight, bias), exact)) < 1e-6
    assert len(asked) == 3  # forward, and the gradients of inputs and weight


@pytest.mark.parametrize(
    ("dtype", "rows", "width"),
    [(torch.bfloat16, 3, 256), (torch.float64, 3, 256), (torch.float32, 0, 256), (torch.float32, 3, 16)],
)
def test_what_torch_multiplies_as_fast_is_left_to_it(dtype, rows, width):
    """16 bits and 64, no rows, small weights: to the bit."""
    given = draw(rows, width, dtype=dtype), draw(256, width, seed=1, dtype=dtype)
    for one, other in zip(found(linear, *given), found(torch_linear, *given), strict=True):
        assert torch.equal(one, other)


def test_factors_with_gaps_are_laid_out_anew(monkeypatch):
    """oneDNN would take a thousand times as long. Inputs, by which a weight's gradient is multiplied; a weight; what
    products are told; and a gradient that is one number many times."""
    asked = []
    own = products._onednns
    monkeypatch.setattr(products, "_onednns", lambda *given: asked.append(given[1]) or own(*given))
    wide, weights = draw(300, 2, 256), draw(256, 2, 256, seed=1)
    for inputs, weight in ((wide[:, 1], weights[:, 1]), (draw(1, 256).expand(300, 256), weights[:, 0])):
        given = inputs.detach().requires_grad_(), weight.detach().requires_grad_()
        exact = [each.detach().double().requires_grad_() for each in given]
        linear(*given).sum().backward()
        torch_linear(*exact).sum().backward()
        assert max(errors([each.grad for each in given], [each.grad for each in exact])) < 1e-5
        assert errors([product(weight, inputs.t())], [weight.double() @ inputs.t().double()])[0] < 1e-5
    assert len(asked) == 8 and all(right.is_contiguous() or right.t().is_contiguous() for right in asked)


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)], ids=str)
def test_a_product_is_that_of_float64_however_its_factors_lie(turned, monkeypatch):
    asked = []
    own = products._product
    monkeypatch.setattr(products, "_product", lambda *given: asked.append(1) or own(*given))
    left, right = draw(37, 260), draw(260, 256, seed=1)
    found = product(*(f.t().contiguous().t() if turn else f for f, turn in zip((left, right), turned, strict=True)))
    assert max(errors([found], [left.double() @ right.double()])) < 1e-6 and len(asked) == 1


@pytest.mark.parametrize(
    ("dtype", "rows", "width"), [(torch.bfloat16, 3, 256), (torch.float64, 3, 256), (torch.float32, 3, 16)]
)
def test_a_product_that_torch_makes_as_fast_is_left_to_it(dtype, rows, width, monkeypatch):
    monkeypatch.setattr(products, "_product", None)
    left, right = draw(rows, width, dtype=dtype), draw(width, 256, seed=1, dtype=dtype)
    assert torch.equal(product(left, right), left @ right)


def test_one_vector_is_left_to_torch():
    layer, inputs = OneDNNLinear(512, 512), torch.ones(512, requires_grad=True)
    assert layer.weight.numel() >= LEAST
    layer(inputs).sum().backward()
    assert torch.allclose(inputs.grad, layer.weight.detach().sum(0), atol=1e-6)


def test_gradients_of_what_does_not_train_are_not_computed(monkeypatch):
    asked = []
    own = products._product
    monkeypatch.setattr(products, "_product", lambda *given: asked.append(1) or own(*given))
    weight = draw(256, 256)
    linear(draw(4, 256).requires_grad_(), weight).sum().backward()
    assert len(asked) == 2 and weight.grad is None


@pytest.mark.parametrize(("of_input", "of_weight"), [(True, False), (False, True), (True, True)])
def test_what_no_gradient_needs_is_not_held(of_input, of_weight):
    """Of a frozen layer the weight alone, and not its input, which grows with the tokens."""
    inputs, weight = torch.randn(4, 256, requires_grad=of_input), torch.randn(256, 256, requires_grad=of_weight)
    kept: list[tuple[int, ...]] = []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        linear(inputs, weight)
    assert sorted(kept) == sorted([(4, 256)] * of_weight + [(256, 256)] * of_input)


def test_a_model_keeps_its_names_weights_and_other_layers():
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict({"plain": nn.Linear(256, 256), "own": Own(256, 256), "norm": nn.LayerNorm(256)})
    before = dict(model.state_dict())
    multiply_by_onednn(model, torch.device("meta"))
    assert type(model["plain"]) is nn.Linear  # on another device than a CPU
    multiply_by_onednn(model, CPU)
    assert isinstance(model["plain"], nn.Linear) and type(model["own"]) is Own
    assert model.state_dict().keys() == before.keys()
    assert all(value is before[name] or torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert isinstance(model["plain"], OneDNNLinear)
