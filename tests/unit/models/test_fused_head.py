"""The fused head: by hand, against autograd on whole logits, and against finite differences in float64."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from math import log

import pytest
import torch
from heads import drawn, some_tokens
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models import logit_blocks, products
from lightrft.models.adapters import adapt
from lightrft.models.fused_head import fused_logprobs
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logit_sums import Sums
from lightrft.models.logprob import token_logprobs
from lightrft.models.output_head import check_head
from lightrft.models.packing import Cost
from lightrft.models.token_model import TokenModel
from lightrft.strategy.base import Handle


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Of 7 columns, which divide no vocabulary here."""
    monkeypatch.setattr(logit_blocks, "CELLS", 0)
    monkeypatch.setattr(logit_blocks, "NARROWEST", 7)


def test_numbers_by_hand():
    """p = 1/2 1/4 1/8 1/8; at temperature 1/2 p = 16 4 1 1 over 22."""
    weight = torch.tensor([[4.0], [2.0], [1.0], [1.0]]).log()
    hidden, tokens = torch.ones(2, 1), torch.tensor([1, 3])
    found = fused_logprobs(Blocks(hidden, weight, None, (), 1.0, 1), tokens, "value")
    # float32 logs
    torch.testing.assert_close(found, torch.tensor([[log(1 / 4), 1.75 * log(2)], [log(1 / 8), 1.75 * log(2)]]))
    [[_, squares], _] = fused_logprobs(Blocks(hidden, weight, None, (), 0.5, 1), tokens, "value").tolist()
    assert squares == pytest.approx(-sum(p * log(p) for p in (16 / 22, 4 / 22, 1 / 22, 1 / 22)), rel=1e-6)
    assert fused_logprobs(Blocks(hidden, weight, None, (2, 3), 1.0, 1), tokens, None)[0].tolist() == pytest.approx(
        [log(1 / 3)]
    )


def test_gradients_by_hand():
    """p = 1/2 1/4 1/4, H = 3/2 log 2. d log p[1] = (-1/2, 3/4, -1/4); dH = -p (log p + H) = (-1/4, 1/8, 1/8) log 2."""
    weight = torch.tensor([[2.0], [1.0], [1.0]]).log().requires_grad_()
    for column, wanted in ((0, [-1 / 2, 3 / 4, -1 / 4]), (1, [-log(2) / 4, log(2) / 8, log(2) / 8])):
        weight.grad = None
        own = fused_logprobs(Blocks(torch.ones(1, 1), weight, None, (), 1.0, 1), torch.tensor([1]), "gradient")
        torch.autograd.backward(own[0, column])
        assert weight.grad is not None and weight.grad[:, 0].tolist() == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("frozen", "wanted"), [(False, 4), (True, 2)])
def test_its_products_are_those_of_linear_layers(frozen, wanted, monkeypatch):
    """Logits, of a trained head once more, and the gradients of what trains; and the same numbers as by torch's."""
    monkeypatch.setattr(logit_blocks, "NARROWEST", 256)
    asked = []
    own = products._product
    monkeypatch.setattr(products, "_product", lambda *given: asked.append(1) or own(*given))
    hidden, weight, _ = drawn(256, 256, 256, dtype=torch.float32)
    weight.requires_grad_(not frozen)
    found = fused_logprobs(Blocks(hidden, weight, None, (), 16.0, 4096), some_tokens(256, 256), None)
    found.sum().backward()
    exact = torch.autograd.grad(
        token_logprobs(hidden.double() @ weight.double().T, some_tokens(256, 256), 16.0, None)[0].sum(), hidden
    )
    assert len(asked) == wanted
    torch.testing.assert_close(hidden.grad, exact[0], rtol=1e-4, atol=1e-6)  # float32


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 10, 4096])
@pytest.mark.parametrize("kind", [None, "value", "gradient"])
@pytest.mark.parametrize("trained", [(0, 1, 2), (0,), (1,), (0, 2)], ids=str)
def test_values_and_gradients_are_those_of_whole_logits(chunk, kind, trained, follows, monkeypatch):
    """With a bias, at a temperature, with words that are never written; blocks that divide neither. trained: of hidden
    states, weight and bias. follows: the reference does, as on a device and where sums overflow."""
    if follows:
        monkeypatch.setattr(Sums, "are_finite", False)
    found, wanted, tokens = drawn(), drawn(), some_tokens().clamp(max=20)
    for each in (found, wanted):
        for number in {0, 1, 2} - set(trained):
            each[number].requires_grad_(False)
    logits = (wanted[0] @ wanted[1].T + wanted[2]).index_fill(-1, torch.tensor([21, 22]), -torch.inf)
    logprobs, entropy = token_logprobs(logits, tokens, 0.7, kind)
    own = fused_logprobs(Blocks(*found, (21, 22), 0.7, chunk), tokens, kind)
    torch.testing.assert_close(own[:, 0], logprobs)
    weights = torch.linspace(-1.0, 2.0, len(tokens), dtype=torch.float64)
    loss, exact = (weights * own[:, 0]).sum(), (weights * logprobs).sum()
    if kind is not None:
        torch.testing.assert_close(own[:, 1], entropy)
        loss, exact = loss + (weights.flip(0) * own[:, 1]).sum(), exact + (weights.flip(0) * entropy).sum()
    loss.backward()
    exact.backward()
    for mine, its in ((found[number], wanted[number]) for number in trained):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-10, atol=1e-12)  # float64


@pytest.mark.parametrize(("entropies", "rows"), [(0.0, 3), (1.0, 10)])
def test_tokens_without_a_slope_take_no_products(entropies, rows, monkeypatch):
    """Three of ten have one to their log-probability; all, where entropies train too."""
    made = []
    own_logits = Blocks.logits
    monkeypatch.setattr(
        Blocks, "logits", lambda self, rows, words, less: made.append(rows) or own_logits(self, rows, words, less)
    )
    found, wanted, tokens = drawn(), drawn(), some_tokens()
    slopes = torch.tensor([0.0, 2.0, 0, 0, -1.0, 0, 0, 0, 0, 0.5], dtype=torch.float64)
    own = fused_logprobs(Blocks(*found, (), 0.7, 4096), tokens, "gradient")
    made.clear()
    ((slopes * own[:, 0]).sum() + entropies * own[:, 1].sum()).backward()
    logprobs, entropy = token_logprobs(wanted[0] @ wanted[1].T + wanted[2], tokens, 0.7, "gradient")
    assert entropy is not None
    ((slopes * logprobs).sum() + entropies * entropy.sum()).backward()
    assert {each.stop for each in made} == {rows}
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-10, atol=1e-12)  # float64


def test_a_token_without_a_slope_hides_no_number():
    hidden, weight, bias = drawn()
    with torch.no_grad():
        hidden[4] = torch.nan
    own = fused_logprobs(Blocks(hidden, weight, bias, (), 0.7, 4096), some_tokens(), None)
    own[0].sum().backward()
    assert weight.grad is not None and bool(weight.grad.isnan().any())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [None, "gradient"])
def test_finite_differences(kind, frozen):
    tokens, tensors = some_tokens(4), drawn(4)
    for each in tensors[1:]:
        each.requires_grad_(not frozen)
    assert torch.autograd.gradcheck(lambda *given: fused_logprobs(Blocks(*given, (), 0.7, 3), tokens, kind), tensors)


class Largest(TorchDispatchMode):
    """The elements of the largest array that anything makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        made = call(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            self.elements = max(self.elements, each.untyped_storage().size() // 4 if isinstance(each, Tensor) else 0)
        return made


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_of_tokens_by_vocabulary_is_ever_made(frozen):
    """Forward and back, with an entropy to train on: inputs and their gradients are the largest."""
    hidden, weight, _ = drawn(90, 200, 5, dtype=torch.float32)
    weight.requires_grad_(not frozen)
    with Largest() as largest:
        own = fused_logprobs(Blocks(hidden, weight, None, (), 0.7, 64), some_tokens(90, 200), "gradient")
        torch.autograd.backward(own.sum())
    assert largest.elements == 200 * 5
    with Largest() as largest:
        token_logprobs(hidden @ weight.T, some_tokens(90, 200), 0.7, None)
    assert largest.elements == 90 * 200


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [None, "value", "gradient"])
def test_a_device_is_never_asked_for_a_value(kind, frozen):
    """It would have to finish all that it was told before the next block: tensors without values do."""
    hidden, weight, bias = (each.detach().to("meta").requires_grad_() for each in drawn())
    weight.requires_grad_(not frozen)
    bias.requires_grad_(not frozen)
    own = fused_logprobs(Blocks(hidden, weight, bias, (21,), 0.7, 3), some_tokens().to("meta"), kind)
    own.sum().backward()
    assert hidden.grad is not None and (frozen or weight.grad is not None)


@pytest.mark.gpu
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
def test_on_a_gpu_it_is_as_near_to_float64_as_whole_logits(dtype, bound, frozen, monkeypatch):
    """Values, and lengths of the gradients' errors, in blocks that divide neither tokens nor words; no host waits."""
    monkeypatch.setattr(logit_blocks, "CELLS_OF_DEVICES", 100 * 1000)
    drawn_ones = drawn(300, 5000, 64, dtype=torch.float32)
    given = [each.detach().to("cuda", dtype) / 4 for each in drawn_ones]
    tokens, slopes = some_tokens(300, 5000).cuda(), torch.linspace(-1.0, 2.0, 300, device="cuda")

    def found(score, kind) -> list[Tensor]:
        leaves = [each.to(kind).requires_grad_(not (frozen and place)) for place, each in enumerate(given)]
        scores = score(*leaves)
        (scores * torch.stack([slopes, slopes.flip(0)], -1)).sum().backward()
        return [scores.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    def whole(hidden, weight, bias) -> Tensor:
        logits = torch.nn.functional.linear(hidden, weight, bias)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return torch.stack(
            [value for value in token_logprobs(logits, tokens, 0.7, "gradient") if value is not None], -1
        )

    def fused(*leaves) -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return fused_logprobs(Blocks(*leaves, (), 0.7, 100), tokens, "gradient")
        finally:
            torch.cuda.set_sync_debug_mode("default")

    exact, plain, own = found(whole, torch.float64), found(whole, dtype), found(fused, dtype)
    for mine, its, right in zip(own, plain, exact, strict=True):
        errors = [float((each.double() - right).norm() / right.norm()) for each in (mine, its)]
        assert errors[0] < max(bound, 1.5 * errors[1])


def test_no_token_gives_gradients_of_zero():
    found = drawn(0)
    assert fused_logprobs(
        Blocks(found[0], *(x.detach() for x in found[1:]), (), 1.0, 4), some_tokens(0), None
    ).shape == (0, 1)
    own = fused_logprobs(Blocks(*found, (), 1.0, 4), some_tokens(0), "gradient")
    assert own.shape == (0, 2)
    own.sum().backward()
    assert [each.grad.abs().sum().item() for each in found] == [0.0, 0.0, 0.0]


ROWS = [((1, 7, 9, 11, 12, 13), (0, 0, 0, 1, 1, 1)), ((1, 7, 9, 20), (0, 0, 0, 1))]
GROUPED = {"group": torch.tensor([5, 5]), "prompt_lengths": torch.tensor([3, 3])}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("sharing", [None, Cost(per_token=1e9, per_pair=0.0)])
def test_a_model_scores_as_with_whole_logits(causal_model, batch_of, kind, sharing):
    """And holds a block of them only; measures still see whole logits."""
    model = causal_model(kind)
    whole = TokenModel(Handle(model, model), sharing)
    fused, batch = TokenModel(Handle(model, model), sharing, chunk=2), batch_of(ROWS, temperature=0.7, **GROUPED)
    wanted, found = whole.logprobs(batch, entropy="value"), fused.logprobs(batch, entropy="value")
    torch.testing.assert_close(found.logprobs, wanted.logprobs, rtol=1e-5, atol=1e-6)  # float32
    torch.testing.assert_close(found.entropy, wanted.entropy, rtol=1e-5, atol=1e-6)
    assert (wanted.logits, found.logits) == (4 * 61, 2 * 7)
    [width] = {len(row) for row in fused.measured(batch, lambda z, _: [z.new_full((len(z),), z.shape[1])])[0]}
    assert width == 6 and "forward" not in vars(model.get_output_embeddings())


def test_what_a_model_does_after_its_head_is_found(causal_model):
    for kind in ("llama", "qwen2", "gpt2", "gemma3"):
        check_head(Handle(causal_model(kind), causal_model(kind)), kind)
    capped = causal_model("gemma2")
    with pytest.raises(Refused, match=r"--fused_linear_logprob: --pretrain x: it scales or caps the logits"):
        check_head(Handle(capped, capped), "--pretrain x")


def test_a_head_with_adapters_is_not_fused(causal_model):
    """It is two products; with adapters in all other layers it is one."""
    for targets, fault in (
        (("all-linear",), None),
        (("lm_head", "q_proj"), "a peft.tuners.lora.layer.Linear, not one"),
    ):
        model = copy.deepcopy(causal_model("llama"))
        adapt(model, ModelArgs(pretrain="x", lora_rank=2, target_modules=targets), seed=0)
        with pytest.raises(Refused, match=f"x: its output head is {fault}") if fault else nullcontext():
            check_head(Handle(model, model), "--pretrain x")
