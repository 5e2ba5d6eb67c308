from __future__ import annotations

import math

import pytest
from command_lines import BASE, REQUIRED, parsed, refusal, refused

from lightrft.args import parse
from lightrft.args.surface import FLAGS


def test_defaults_stand_where_nothing_is_typed():
    args = parsed()
    assert (args.model.pretrain, args.data.prompt_data, args.batch.train_batch_size) == ("tiny", ("add.jsonl",), 16)
    assert (args.training.actor_learning_rate, args.sampling.top_p, args.algorithm.kl_estimator) == (5e-7, 0.9, "k3")
    assert args.sources["top_p"].where == "default" and not args.typed("top_p")
    assert args.sources["pretrain"].where == "cli" and args.typed("pretrain")


def test_defaults_that_follow_from_other_flags():
    args = parsed("--max_len 100 --prompt_max_len 30")
    assert args.model.max_new_tokens == 70
    assert args.logging.log_dir == "out/logs" and args.checkpoint.ckpt_path == "out/checkpoints"
    assert args.evaluation.eval_batch_size == 4
    assert args.sources["max_new_tokens"].where == "default"
    set_by_hand = parsed("--max_len 100 --prompt_max_len 30 --max_new_tokens 7 --log_dir logs")
    assert (set_by_hand.model.max_new_tokens, set_by_hand.logging.log_dir) == (7, "logs")


def test_with_replaces_and_fills_anew():
    args = parsed().with_(save_path="other", top_k=3)
    assert (args.logging.log_dir, args.sampling.top_k, args.typed("top_k")) == ("other/logs", 3, True)
    assert args.with_(log_dir="x").with_(save_path="y").logging.log_dir == "x"
    with pytest.raises(KeyError, match="topk"):
        args.with_(topk=3)


def test_switches_have_both_forms():
    assert parsed("--fsdp").distributed.fsdp is True
    assert parsed("--fsdp --no-fsdp").distributed.fsdp is False
    assert parsed().distributed.bf16 is None
    assert parsed("--no-bf16").distributed.bf16 is False
    assert refused("--fsdp true") == ["--fsdp takes no value, got 'true'; write --fsdp or --no-fsdp"]


def test_alias_and_equals_sign():
    assert parsed("--generate_max_len 9").model.max_new_tokens == 9
    assert parsed("--generate_max_len=9").sources["max_new_tokens"].where == "cli"


def test_lists_pairs_and_negative_numbers():
    args = parsed("--stop a b --adam_betas 0.5 0.6 --reward_weights math.py:f=-1e-3 a.b=2 c=d=3 --top_k -1")
    assert args.sampling.stop == ("a", "b") and args.training.adam_betas == (0.5, 0.6)
    assert args.rewards.reward_weights == {"math.py:f": -1e-3, "a.b": 2.0, "c=d": 3.0}
    assert args.sampling.top_k == -1
    assert refused("--l2 -1e-3") == ["--l2 -0.001 is out of bounds: it must be >= 0"]


def test_the_later_word_wins_and_shows_what_it_hides():
    args = parsed("--seed 1 --seed 2")
    assert args.training.seed == 2
    assert str(args.sources["seed"]) == "cli (hides cli = 1)"


DASHED = "; one that begins with a dash is written --flag=-value"


@pytest.mark.parametrize(
    "text, line",
    [
        ("--max_steps 3.5", "--max_steps must be an integer, got '3.5'"),
        ("--temperature nan", "--temperature must be a finite number, got 'nan'"),
        ("--temperature", f"--temperature takes one value, got none{DASHED}"),
        ("--temperature 1 2", "--temperature takes one value, and '2' belongs to no flag"),
        ("--adam_betas 0.5", "--adam_betas takes 2 values, got 1"),
        ("--adam_betas 0.5 0.6 0.7", "--adam_betas takes 2 values, got 3"),
        ("--reward_fn", f"--reward_fn takes at least one value, got none{DASHED}"),
        ("--reward_weights a", "--reward_weights takes name=number, got 'a'"),
        ("--reward_weights =1", "--reward_weights takes name=number, got '=1'"),
        ("--reward_weights a=b", "--reward_weights must be a finite number, got 'b'"),
        ("--reward_weights a=1 a=2", "--reward_weights names 'a' twice; remove one"),
        (
            "--clip_range_lower 0.1 --clip_range 0.2",
            "--clip_range_lower and --clip_range are one flag with two values; remove one",
        ),
        (
            "--normalize_advantages --no-advantages_norm",
            "--normalize_advantages and --no-advantages_norm are one flag with two values; remove one",
        ),
        (
            "--lr_scheduler cosin",
            "--lr_scheduler cosin is not one of its choices: constant, linear, cosine, "
            "cosine_with_min_lr; nearest: cosine",
        ),
        ("--adavntage_estimator x", "--adavntage_estimator is not a flag; nearest: --advantage_estimator"),
        ("--max-steps 3", "--max-steps is not a flag; nearest: --max_steps"),
        ("--no-fspd", "--no-fspd is not a flag; nearest: --no-fsdp"),
        ("--no-seed", "--no-seed is not a flag; nearest: --seed"),
        ("--qqqqqqqq -3", "--qqqqqqqq is not a flag; --help lists them all"),
        ("--max_step 3", "--max_step is not a flag; nearest: --max_steps"),
        ("-x", "-x is not a flag; --help lists them all"),
        ("--bits 5", "--bits 5 is not one of its choices: 4, 8, 16"),
        ("--engine_type tgi", "--engine_type tgi is not one of its choices: auto, vllm, sglang, local"),
    ],
)
def test_one_line_for_one_mistake(text: str, line: str):
    assert refused(text) == [line]


@pytest.mark.parametrize(
    "word, line",
    [
        ("worker.actor.optim.lr=1e-5", "worker.actor.optim.lr=1e-5: use --actor_learning_rate 1e-5"),
        (
            "+actor_rollout_ref.actor.optim.lr=1e-5",
            "+actor_rollout_ref.actor.optim.lr=1e-5: use --actor_learning_rate 1e-5",
        ),
        ("algorithm.use_kl_loss=False", "algorithm.use_kl_loss=False: use --no-use_kl_loss"),
        (
            "worker.rollout.gpu_memory_utilization=0.5",
            "worker.rollout.gpu_memory_utilization=0.5: use --engine_mem_util 0.5",
        ),
        ("trainer.seed=1", "trainer.seed=1: use --seed 1"),
        ("a.sed=1", "a.sed=1 is a dotted override, and there are none here; nearest: --seed"),
    ],
)
def test_dotted_overrides_name_the_flag(word: str, line: str):
    assert refused(word) == [line]
    assert refusal(parse, [word, *BASE.split()]) == [line]


def test_a_text_may_look_like_a_dotted_override():
    assert parsed("--system_prompt a.b=c").data.system_prompt == "a.b=c"
    assert parsed("--stop x.y=1 z").sampling.stop == ("x.y=1", "z")
    assert refused("--stop x y.z=1")[0].startswith("y.z=1 is a dotted override")
    assert refused("--seed y.z=1")[0].startswith("y.z=1 is a dotted override")


def test_words_that_belong_to_no_flag():
    assert refusal(parse, ["stray", *BASE.split()]) == ["'stray' belongs to no flag; remove it"]
    assert refused("--") == ["-- is not a flag; --help lists them all"]


def test_empty_text_is_refused():
    assert refusal(parse, [*BASE.split(), "--save_path", ""]) == [
        "--save_path is empty: give a value or leave the flag out"
    ]


def test_missing_flags_are_named_together():
    assert refusal(parse, ["--reward_fn", "last_number"]) == [
        f"--{name} is required"
        for name in ("pretrain", "train_batch_size", "rollout_batch_size", "prompt_data", "save_path")
    ]


def test_all_problems_together_and_rules_only_on_sound_flags():
    text = (
        f"{REQUIRED} --adavntage_estimator x --max_steps 3.5 --temperature 0 --fsdp_cpu_offload --max_len 0 --top_k 0"
    )
    assert refusal(parse, text.split(), world_size=2) == [
        "--max_steps must be an integer, got '3.5'",
        "--temperature 0 is out of bounds: it must be > 0",
        "--max_len 0 is out of bounds: it must be >= 2",
        "--adavntage_estimator is not a flag; nearest: --advantage_estimator",
        "--fsdp_cpu_offload needs --fsdp; add --fsdp or remove it",
        "--top_k 0 leaves no token to sample; use -1 (off) or at least 1",
        "there is no reward: give --reward_fn (a rule or file.py:function), --reward_pretrain (a reward model, not "
        "built yet), --remote_rm_url (a reward server, not built yet), or --prompt_data reasoning_gym:<task>, which "
        "brings its own verifier",
    ]


def test_rules_on_a_missing_flag_are_not_reported():
    text = REQUIRED.replace("--train_batch_size 16", "--micro_train_batch_size 5") + " --reward_fn last_number"
    assert refusal(parse, text.split()) == ["--train_batch_size is required"]


def test_print_args_alone_means_text():
    assert parsed("--print_args").run.print_args == "text"
    assert parsed("--print_args json").run.print_args == "json"
    assert parsed().run.print_args is None


def test_help_exits_with_zero_and_shows_the_record(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "--actor_learning_rate FLOAT Peak learning rate of the policy. [default: 5e-07; bounds: > 0; " in shown
    assert "recommended: 1e-07 to 0.0002]" in shown
    assert "--fsdp, --no-fsdp FSDP2" in shown and "--max_new_tokens, --generate_max_len INT" in shown
    assert (
        "{cpgd,gae,group_norm,gspo,reinforce}" in shown and "[default: max_len - prompt_max_len; bounds: >= 1]" in shown
    )


def _outside(flag) -> list[float]:
    """Numbers just beyond each bound."""
    record, step = flag.record, 1 if flag.kind.of is int else 1e-6
    beyond = [
        record.ge is not None and record.ge - step,
        record.gt,
        record.le is not None and record.le + step,
        record.lt,
    ]
    return [number for number in beyond if number is not None and number is not False]


BOUNDED = [(flag.name, number) for flag in FLAGS.values() for number in _outside(flag)]


@pytest.mark.parametrize("name, number", BOUNDED)
def test_bounds_are_held(name: str, number: float):
    flag = FLAGS[name]
    shown = f"{number:d}" if flag.kind.of is int else f"{number:f}"
    word = shown if not flag.kind.count else f"0.5 {shown}"
    (line,) = refused(f"--{name} {word}")
    assert line.startswith(f"--{name} ") and line.endswith(f" is out of bounds: it must be {flag.record.bounds()}")
    assert math.isclose(float(line.split()[1]), number)


ONE_OR_MORE = """
prompt_max_len max_new_tokens num_episodes max_epochs max_steps train_batch_size micro_train_batch_size
rollout_batch_size micro_rollout_batch_size n_samples_per_prompt eval_steps max_eval_samples eval_batch_size
logging_steps save_steps max_ckpt_num max_samples num_trajectories_to_save profile_steps
max_tokens_per_micro_batch kl_horizon max_gen_batches overlong_buffer_len reward_workers sp_size zpg hybrid_shard_size
ref_shard_size chunk_size engine_tp_size oversample_ratio limit_mm_image_per_prompt eval_n_samples max_pixels
"""


NONE_OR_MORE = """
lr_warmup_steps max_norm l2 seed init_kl_coef kl_target eval_temperature plot_every save_interval max_ckpt_mem
freezing_actor_steps lora_rank entropy_coef temperature_schedule_steps advantage_clip reward_clip dataloader_num_workers
"""
ABOVE_ZERO = """
actor_learning_rate adam_epsilon clip_range_higher temperature lora_alpha lora_learning_rate critic_learning_rate
value_clip overlong_buffer_penalty_factor is_cap is_low temperature_final first_token_temperature
reward_timeout dist_timeout_s max_logprob_gap cpgd_drift_cap prompt_data_probs fps watchdog_s
"""


def test_these_flags_have_these_bounds():
    bounds = {flag.name: flag.record.bounds() for flag in FLAGS.values() if flag.record.bounds()}
    assert bounds == {
        **dict.fromkeys(ONE_OR_MORE.split(), ">= 1"),
        **dict.fromkeys(NONE_OR_MORE.split(), ">= 0"),
        **dict.fromkeys(ABOVE_ZERO.split(), "> 0"),
        **dict.fromkeys(["lr_warmup_ratio", "min_p", "gamma", "lambd", "high_entropy_token_ratio"], ">= 0 and <= 1"),
        **dict.fromkeys(["clip_range", "eps_clip"], "> 0 and < 1"),
        **dict.fromkeys(["top_p", "engine_mem_util"], "> 0 and <= 1"),
        **dict.fromkeys(["adam_betas", "lora_dropout", "ema_beta"], ">= 0 and < 1"),
        **dict.fromkeys(["dual_clip"], "> 1"),
        "max_len": ">= 2",
        "top_k": ">= -1",
        "zero_stage": ">= 1 and <= 3",
    }
