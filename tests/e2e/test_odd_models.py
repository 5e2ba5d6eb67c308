"""Models that are not what they seem, as a user gives them: said by --dry_run already, and nothing is written."""

from __future__ import annotations

import json
import shutil

import pytest
from runs import read_json, train
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lightrft.build import trainer


@pytest.fixture
def odd(here):
    return shutil.copytree(here / "tiny", here / "odd")


def change(folder, file, **entries):
    values = read_json(folder / file) | entries
    (folder / file).write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        (lambda odd: change(odd, "config.json", vocab_size=12), "its model 12, and add.jsonl:1 needs token 1"),
        (lambda odd: (odd / "tokenizer.json").unlink(), "odd: it has no tokenizer"),
        (lambda odd: (odd / "model.safetensors").rename(odd / "pytorch_model.bin"), "which could run code"),
        (lambda odd: change(odd, "config.json", architectures=["Qwen2ForMaskedLM"]), "it is a Qwen2ForMaskedLM"),
        (lambda odd: odd.rename(odd.parent / "odds"), "no such model folder; is it odds?"),
    ],
    ids=["vocabulary", "no tokenizer", "bin", "masked", "typo"],
)
def test_it_is_refused_before_anything_is_written(here, odd, flaw, says):
    flaw(odd)
    ended = train("--pretrain odd --save_path run --dry_run")
    assert ended.code == 2 and len(ended.problems) == 1 and says in ended.problems[0]
    assert not (here / "run").exists()


NO_LAYERS = {"model_type": "openai-gpt", "architectures": None, "layer_types": None}
EAGER = {"model_type": "gemma2", "architectures": None, "layer_types": None}
NAMED_EAGER = {"attn_implementation": "eager"}
SCALED = {"model_type": "granite", "architectures": None, "layer_types": None, "logits_scaling": 2.0}
UNTIED = {"tie_word_embeddings": False}
OWN_CRITIC = "--advantage_estimator gae --critic_pretrain"
SELECTIVE = "--gradient_checkpointing --recompute_granularity selective"
SEGMENTS = "needs a model with rotary positions and full attention through sdpa in every layer, and"


@pytest.mark.parametrize(
    ("other", "flags", "says"),
    [
        (
            NO_LAYERS,
            "--pretrain odd --gradient_checkpointing",
            "--gradient_checkpointing: --pretrain odd has no layers",
        ),
        (
            EAGER,
            f"--pretrain odd {SELECTIVE}",
            "--recompute_granularity selective keeps what the attention sdpa gave, and",
        ),
        (
            EAGER,
            f"--critic_pretrain odd --advantage_estimator gae {SELECTIVE}",
            "and --critic_pretrain odd runs eager; use ",
        ),
        (
            NAMED_EAGER,
            "--pretrain odd --packing_samples",
            f"--packing_samples {SEGMENTS} --pretrain odd runs eager; use --attn_implementation sdpa",
        ),
        (
            NAMED_EAGER,
            "--critic_pretrain odd --advantage_estimator gae --share_prompts --dry_run",
            f"--share_prompts {SEGMENTS} --critic_pretrain odd runs eager; use --attn_implementation sdpa",
        ),
        (
            EAGER,
            "--pretrain odd --packing_samples --assume_gpus 2x80GB --dry_run",
            f"{SEGMENTS} --pretrain odd has layers",
        ),
        (
            SCALED,
            "--pretrain odd --fused_linear_logprob",
            "--fused_linear_logprob: --pretrain odd: it scales or caps the logits",
        ),
        (
            UNTIED,
            "--pretrain odd --fused_linear_logprob --lora_rank 2 --target_modules lm_head q_proj --dry_run",
            "--fused_linear_logprob: --pretrain odd: its output head is a peft",
        ),
    ],
)
def test_what_a_model_cannot_do_is_told_before_any_data_are_read(odd, monkeypatch, other, flags, says):
    monkeypatch.setattr("lightrft.preflight.load_prompts", lambda *_, **__: pytest.fail("data were read"))
    change(odd, "config.json", **other)
    ended = train(f"{flags} --fsdp --save_path run")
    assert ended.code == 2 and len(ended.problems) == 1 and says in ended.problems[0], ended.err


@pytest.mark.parametrize(
    "flags",
    [
        "--share_prompts",
        "--attn_implementation sdpa --packing_samples",
        "--sp_size 2 --assume_gpus 2x80GB",
        "--gradient_checkpointing --save_steps 1",
    ],
)
def test_a_critic_whose_type_has_no_language_model(odd, flags):
    change(odd, "config.json", model_type="qwen3_vl_text", architectures=None)
    told = train(f"{OWN_CRITIC} odd --fsdp --save_path run --dry_run {flags}")
    assert told.code == 0 and "critic odd, value head score" in told.out, told.err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--pretrain odd --packing_samples", "--pretrain odd has layers that see 9 tokens"),  # as the critic has
        ("--packing_samples", "--critic_pretrain odd has layers that see 9 tokens"),
        ("--sp_size 2 --assume_gpus 2x80GB", "--sp_size 2: --critic_pretrain odd has layers that see 9 tokens"),
    ],
)
def test_the_flag_of_the_model_at_fault_is_named(odd, flags, says):
    window = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0, "layer_types": None}
    change(odd, "config.json", **window)
    ended = train(f"{OWN_CRITIC} odd --fsdp --save_path run --dry_run {flags}")
    assert ended.code == 2 and len(ended.problems) == 1 and says in ended.problems[0], ended.err


def test_the_kernel_that_is_looked_at_is_the_one_that_a_flag_asks_for(odd):
    """Also where the model's configuration names another one."""
    change(odd, "config.json", attn_implementation="eager")
    flags = f"--pretrain odd {SELECTIVE} --fsdp --save_path run --max_steps 1"
    assert [train(f"{flags} {kernel}").code for kernel in ("", "--attn_implementation sdpa")] == [2, 0]


@pytest.mark.parametrize(
    ("flags", "shared"),
    [
        ("", False),
        ("--attn_implementation sdpa", True),
        ("--packing_samples --attn_implementation sdpa", True),
        (f"{OWN_CRITIC} tiny", False),  # whose passes share them
    ],
)
def test_the_plan_tells_of_shared_prompts_where_the_model_shares_them(odd, monkeypatch, flags, shared):
    models, make = [], trainer.make_token_model
    monkeypatch.setattr(trainer, "make_token_model", lambda *args: models.append(make(*args)) or models[-1])
    change(odd, "config.json", attn_implementation="eager")
    for more in ("--dry_run", ""):
        told = train(f"--pretrain odd --save_path run --max_steps 1 {more} {flags}")
        assert told.code == 0 and ("prompts shared where that is cheaper" in told.out) == shared, told.err
    assert models and all(model.shares_prompts == shared for model in models)


def test_the_plan_of_a_kernel_that_only_another_machine_has(odd):
    """It is not looked for here."""
    change(odd, "config.json", attn_implementation="flash_attention_2")
    flags = "--pretrain odd --save_path run --dry_run --assume_gpus 2x80GB"
    told = train(flags)
    assert told.code == 0 and "prompts shared" not in told.out, told.err
    over_processes = train(f"{flags} --sp_size 2 --packing_samples")  # which replace it
    assert over_processes.code == 0 and "prompts shared" in over_processes.out, over_processes.err


def test_no_end_token_is_a_notice(here, odd):
    for file in ("config.json", "generation_config.json"):
        change(odd, file, eos_token_id=None)
    change(odd, "tokenizer_config.json", eos_token=None)
    ended = train("--pretrain odd --save_path run --dry_run")
    assert ended.code == 0 and "notice: --pretrain odd: neither its tokenizer nor its configuration" in ended.out
    assert train("--pretrain odd --save_path run --dry_run --stop =").out.count("notice: --pretrain") == 0
    refused = train("--pretrain odd --save_path run --dry_run --strict_args --actor_learning_rate 1e-5")
    assert refused.code == 2 and "names an end token that the model has" in refused.err


def test_what_was_given_comes_back(here, odd):
    """A tokenizer that transformers rebuilds, in bf16 and without padding: the run's prompts and its export."""
    change(odd, "tokenizer_config.json", pad_token=None, my_own=1)
    weights = {name: value.bfloat16() for name, value in load_file(odd / "model.safetensors").items()}
    save_file(weights, odd / "model.safetensors", metadata={"format": "pt"})
    row = {"prompt": "3 + 5 =", "label": "8"}
    (here / "spaces.jsonl").write_text(json.dumps(row) + "\n")
    flags = "--pretrain odd --prompt_data spaces.jsonl --eval_data spaces.jsonl --reward_fn shaped.py:length"
    ended = train(f"{flags} --save_path run --max_steps 1 --save_steps 1 --save_hf_ckpt --quiet")
    assert ended.code == 0, ended.err
    for folder in ("run", "run/checkpoints/step_000001/hf"):
        for path in odd.iterdir():
            if path.suffix != ".safetensors":
                assert (here / folder / path.name).read_bytes() == path.read_bytes(), path.name
        found = load_file(here / folder / "model.safetensors")
        assert {n: v.dtype for n, v in found.items()} == {n: v.dtype for n, v in weights.items()}
        assert any(bool((found[name] != value).any()) for name, value in weights.items())
    shipped = Tokenizer.from_file(str(odd / "tokenizer.json")).encode(row["prompt"])
    assert "<unk>" in shipped.tokens
    assert f"{len(shipped.ids)} tokens" in train(f"{flags} --save_path other --dry_run").out
