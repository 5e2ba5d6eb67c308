from __future__ import annotations

from types import SimpleNamespace

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lightrft.errors import Refused
from lightrft.loop.alike import check_alike, files, flags
from lightrft.ranks.base import ONE_RANK
from lightrft.types import Prompt


def second_of(first: dict, own: dict) -> None:
    """What the second rank of two is told where the first has `first`."""
    check_alike(own, SimpleNamespace(gather=lambda items: [first, *items]))


def test_other_flags_on_another_rank_are_refused_with_both_values():
    second_of({"--fsdp": True, "--l2": 0.0}, {"--fsdp": True, "--l2": 0.0})
    check_alike({"--fsdp": True}, ONE_RANK)
    with pytest.raises(Refused, match=r"^--l2 is 0.0 on rank 0 and 0.5 on rank 1; start every process with the same"):
        second_of({"--fsdp": True, "--l2": 0.0}, {"--fsdp": True, "--l2": 0.5})


def test_other_files_are_seen_by_their_contents(tiny_folder, tmp_path):
    from lightrft.args import parse

    (tmp_path / "reward.py").write_text("def f(responses): return [0.0] * len(responses)")
    (tmp_path / "model").mkdir()
    for path in (tiny_folder / "model").iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    given = LoraConfig(target_modules=["q_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), given).save_pretrained(tmp_path / "lora")
    models = f"--pretrain {tmp_path}/model --lora_path {tmp_path}/lora"
    text = f"{models} --save_path x --train_batch_size 4 --rollout_batch_size 1 --prompt_data x"
    args = parse(f"{text} --reward_fn {tmp_path}/reward.py:f --prompt_max_len 8 --max_len 16".split())
    prompts = [Prompt(id="a", messages=(), token_ids=(1, 2), reference=3)]
    before = files(args, prompts, [])
    assert before == files(args, [Prompt(id="a", messages=(), token_ids=(1, 2), reference=3)], [])

    def changed():
        after = files(args, prompts, [])
        return {name for name in after if after[name] != before[name]}

    weights = tmp_path / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert changed() == {"the hash of what --pretrain holds"}
    weights.write_bytes(content)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        path = tmp_path / "lora" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert changed() == {"the hash of what --lora_path holds"}
        path.write_bytes(whole)
    (tmp_path / "reward.py").write_text("def f(responses): return [1.0] * len(responses)")
    assert changed() == {f"the code of {tmp_path}/reward.py"}
    other = files(args, [Prompt(id="a", messages=(), token_ids=(1, 2), reference=4)], [])
    assert other["what --prompt_data holds"] != before["what --prompt_data holds"]
    assert flags(args)["--reward_fn"] == [f"{tmp_path}/reward.py:f"]
