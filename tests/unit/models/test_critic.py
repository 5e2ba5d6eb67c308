"""The value model: what its numbers stand for, where its head comes from, and what an export can be opened with."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.critic import ValueHead, ValueModel, check_critic, count_critic, load_critic, saved_head
from lightrft.models.export import save_hf
from lightrft.models.given import Given
from lightrft.models.packing import Cost
from lightrft.models.token_model import TokenCritic
from lightrft.strategy.base import Handle, named_tensors

FREE = Cost(per_token=1e9, per_pair=0.0)
CPU = torch.device("cpu")


@pytest.fixture
def critic(causal_model):
    backbone = copy.deepcopy(causal_model("qwen2").base_model)
    head = ValueHead(32, 1)  # with a bias, as Hugging Face's
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(2))
    return ValueModel(backbone, head, "score")


@pytest.fixture
def batch(batch_of):
    """Two samples of one prompt, one with a gap (a tool's answer) and one of a single token; a sample of another."""
    rows = [
        ((1, 5, 9, 11, 12, 13, 14), (0, 0, 0, 1, 1, 0, 1)),
        ((1, 5, 9, 20), (0, 0, 0, 1)),
        ((1, 7, 8, 9, 10), (0, 0, 1, 1, 1)),
    ]
    return batch_of(rows, group=torch.tensor([0, 0, 1]))


def token_values(critic, batch, sharing=None):
    return TokenCritic(Handle(critic, critic), sharing).values(batch)


def value_of(critic, tokens) -> float:
    """What the critic says of `tokens` when it has read nothing else."""
    hidden = critic.backbone(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1]
    return (critic.score.weight[0] @ hidden + critic.score.bias[0]).item()


@pytest.mark.parametrize("sharing", [None, FREE])
def test_the_value_at_a_token_is_that_of_what_stands_before_it(critic, batch, sharing):
    """By hand: each prefix on its own. The token itself is not read, or the baseline would depend on the action."""
    found = token_values(critic, batch, sharing=sharing)
    assert found.dtype == torch.float32 and found.shape == batch.input_ids.shape
    for row, mask in enumerate(batch.response_mask.tolist()):
        for t, trained in enumerate(mask):
            wanted = value_of(critic, batch.input_ids[row, :t].tolist()) if trained else 0.0
            assert found[row, t].item() == pytest.approx(wanted, abs=1e-5)
    assert found[0, 3].item() == pytest.approx(found[1, 3].item(), abs=1e-5), "one prompt has one value"
    assert found[batch.response_mask == 1].std().item() > 0.1


def test_a_token_changes_the_next_value_and_not_its_own(critic, batch):
    changed = batch.input_ids.clone()
    changed[0, 4] = 33
    before, after = token_values(critic, batch), token_values(critic, batch.filled(input_ids=changed))
    assert before[0, 3:5].tolist() == pytest.approx(after[0, 3:5].tolist(), abs=1e-6)
    assert abs((before[0, 6] - after[0, 6]).item()) > 1e-3


def test_no_trained_token_still_runs_the_model(critic, batch):
    found = token_values(critic, batch.filled(response_mask=batch.response_mask * 0))
    assert not found.any() and found.requires_grad


def test_values_are_float32_whatever_the_weights_are(critic, batch):
    wanted = token_values(critic, batch)
    found = token_values(critic.to(torch.bfloat16), batch)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max().item() < 0.3


def arguments(folder, **more) -> ModelArgs:
    return ModelArgs(pretrain=str(folder), prompt_max_len=8, max_new_tokens=8, **more)


def add(folder, **tensors):
    path = folder / "model.safetensors"
    save_file({**load_file(path), **tensors}, path, {"format": "pt"})


@pytest.fixture
def folder(causal_model, tmp_path):
    causal_model("qwen2").save_pretrained(tmp_path)
    return tmp_path


def test_a_new_head_gives_zero(folder, batch):
    critic = load_critic(arguments(folder), torch.float32, CPU)
    assert saved_head(arguments(folder)) == {}
    assert not token_values(critic, batch).any()
    assert list(named_tensors(critic))[-1][0] == "score.weight" and not critic.training


@pytest.mark.parametrize("bias", [False, True])
def test_it_is_counted_before_it_is_loaded(folder, bias):
    """Without the language model's head, which has numbers of its own and is no part of a critic."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    head = {"score.weight": torch.ones(1, 32), "score.bias": torch.ones(1)}
    add(folder, **(head if bias else {}))
    critic = load_critic(arguments(folder), torch.float32, CPU)
    assert count_critic(arguments(folder)) == sum(parameter.numel() for parameter in critic.parameters())


def test_a_head_is_found_in_the_weights(folder, batch):
    """Under the flag's name, with a bias or without; also where the weights are in several files."""
    weight = torch.linspace(-1, 1, 32)[None]
    add(folder, **{"v_head.weight": weight, "v_head.bias": torch.tensor([0.5])})
    args = arguments("elsewhere", critic_pretrain=str(folder), value_head_prefix="v_head")
    critic = load_critic(args, torch.float32, CPU)
    assert torch.equal(critic.v_head.weight, weight) and critic.v_head.bias.item() == 0.5
    assert "score.weight" not in dict(named_tensors(critic))
    whole = load_file(folder / "model.safetensors")
    first = {name: whole.pop(name) for name in ("v_head.weight", "model.norm.weight")}
    places = {}
    for number, tensors in enumerate((first, whole), start=1):
        save_file(tensors, folder / (name := f"model-0000{number}-of-00002.safetensors"), {"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    again = load_critic(args, torch.float32, CPU)
    assert torch.equal(token_values(again, batch), token_values(critic, batch))


def test_a_head_that_is_none_is_refused(folder):
    add(folder, **{"score.weight": torch.zeros(2, 32)})
    with pytest.raises(Refused, match="--value_head_prefix: score.weight of .* is 2 x 32, a critic's is 1 x 32"):
        load_critic(arguments(folder), torch.float32, CPU)
    for name in ("model", "forward", "config"):
        with pytest.raises(Refused, match=f"--value_head_prefix {name} is the name of another part"):
            load_critic(arguments(folder, value_head_prefix=name), torch.float32, CPU)


def test_an_export_opens_as_a_classifier_of_tokens(critic, batch, tiny_tokenizer, tmp_path):
    """Hugging Face's own class gives our values, one position earlier; a critic that starts from it has the same."""
    from transformers import AutoModelForTokenClassification

    save_hf(critic, named_tensors(critic), Given(), tmp_path)
    opened = AutoModelForTokenClassification.from_pretrained(tmp_path, num_labels=1).eval()
    wanted = opened(input_ids=batch.input_ids).logits[:, :-1, 0]
    found = token_values(critic, batch)
    assert torch.allclose(found[:, 1:], wanted * batch.response_mask[:, 1:], atol=1e-5)
    again = load_critic(arguments(tmp_path), torch.float32, CPU)
    assert torch.equal(token_values(again, batch), found)


def test_a_critic_reads_the_policys_tokens(tiny_folder, tiny_tokenizer, tmp_path):
    own = shutil.copytree(tiny_folder / "model", tmp_path / "own")
    check_critic(arguments(own), tiny_tokenizer)
    check_critic(arguments("x", critic_pretrain=str(own)), tiny_tokenizer)
    (own / "tokenizer.json").write_text((own / "tokenizer.json").read_text().replace('"+"', '"-"'))
    with pytest.raises(Refused, match="--critic_pretrain .*: its tokenizer is not that of --pretrain x"):
        check_critic(arguments("x", critic_pretrain=str(own)), tiny_tokenizer)
    with pytest.raises(Refused, match="^--critic_pretrain ./nowhere: no such model folder"):
        check_critic(arguments("x", critic_pretrain="./nowhere"), tiny_tokenizer)
