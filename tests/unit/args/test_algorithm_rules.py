"""What an estimator, its critic, KL, clips and samples need of each other, and what can do nothing beside the rest."""

from __future__ import annotations

import pytest
from command_lines import broken_rules, notices, parsed, refusal

from lightrft.args import check
from lightrft.recipe import kl_term


def test_the_critic_learns_faster():
    slow = "--advantage_estimator gae --actor_learning_rate 1e-6 --critic_learning_rate 1e-6"
    line = (
        "--actor_learning_rate 1e-06 is not below --critic_learning_rate 1e-06; the critic usually learns faster, as "
        "with --critic_learning_rate 1e-05"
    )
    assert f"{line} (refused under --strict_args; remove it, or --strict_args)" in broken_rules(f"{slow} --strict_args")
    assert notices("--advantage_estimator gae --actor_learning_rate 9e-7 --critic_learning_rate 1e-6") == []
    assert notices("--actor_learning_rate 5e-6") == []


CRITIC = ("lambd 1", "critic_pretrain x", "value_head_prefix v", "freezing_actor_steps 1", "critic_learning_rate 1e-5")


@pytest.mark.parametrize("flag", CRITIC)
def test_flags_of_the_critic_need_one(flag: str):
    (line,) = notices(f"--{flag} --max_steps 3")
    assert line.endswith(" cannot matter: --advantage_estimator group_norm has no critic")
    assert notices(f"--{flag} --max_steps 3 --advantage_estimator gae") == []


def test_values_are_clipped_from_the_second_optimizer_step_on():
    one = "--value_clip 0.1 cannot matter: there is one optimizer step per rollout step, so values are the old ones"
    assert notices("--value_clip 0.1 --advantage_estimator gae") == [one]
    assert notices("--value_clip 0.1 --advantage_estimator gae --max_epochs 2") == []
    (line,) = notices("--value_clip 0.1 --max_epochs 2")
    assert line == "--value_clip 0.1 cannot matter: --advantage_estimator group_norm has no critic"


def test_the_policy_has_steps_to_learn_in():
    frozen = "--advantage_estimator gae --freezing_actor_steps 3"
    assert notices(f"{frozen} --max_steps 3") == [
        "--freezing_actor_steps 3 leaves the policy none of --max_steps 3 to learn in"
    ]
    assert notices(f"{frozen} --max_steps 4") == [] == notices(frozen)


def test_a_critic_needs_no_group():
    assert notices("--advantage_estimator gae --n_samples_per_prompt 1 --train_batch_size 4") == []


def test_a_small_kl_target():
    assert notices("--kl_target 0.01") == []
    assert notices("--kl_target 0.5") == ["--kl_target 0.5 is outside the recommended range 0.001 to 0.1"]


def test_what_an_estimator_does_not_heed():
    assert notices("--advantages_norm") == [
        "--advantages_norm cannot matter: the advantages of group_norm are normalised already"
    ]
    assert notices("--gamma 0.9") == [
        "--gamma 0.9 cannot matter: --advantage_estimator group_norm has one advantage a response"
    ]
    assert notices("--gamma 0.9 --advantage_estimator reinforce") == []
    loss = "--advantage_estimator gspo --loss_agg_mode token-mean"
    assert notices(loss) == ["--loss_agg_mode token-mean cannot matter to --advantage_estimator gspo"]
    assert broken_rules("--advantage_estimator gspo --high_entropy_token_ratio 0.2")[0].startswith(
        "--high_entropy_token_ratio 0.2: --advantage_estimator gspo has one ratio for all tokens"
    )
    off_policy = "--advantage_estimator gspo --max_epochs 2 --clip_range"
    assert notices(f"{off_policy} 0.2") == [
        "--clip_range 0.2 hardly ever clips a response of --advantage_estimator gspo; its own is 0.0003"
    ]
    assert notices(f"{off_policy} 0.001") == []


def test_kl_in_the_reward_wants_k1():
    assert notices("--advantage_estimator reinforce --kl_estimator k3") == [
        "--kl_estimator k3 in the reward gives a biased gradient; use --kl_estimator k1"
    ]
    assert notices("--advantage_estimator reinforce") == []


def test_fire_without_a_filter():
    assert notices("--use_fire") == [] == notices("--use_fire --top_p 1 --top_k 50")
    (line,) = notices("--use_fire --top_p 1")
    assert line.startswith("--use_fire at --first_token_temperature 10.0 without a filter")


@pytest.mark.parametrize("name", ["v_head.summary", "", ".score"])
def test_a_value_head_is_one_module(name: str):
    shown = name or "''"
    args = parsed("--advantage_estimator gae").with_(value_head_prefix=name)
    line = f"--value_head_prefix {shown} is not the name of one module"
    assert [problem[: len(line)] for problem in refusal(check, args)] == [line]


def test_a_short_horizon():
    assert notices("--kl_target 0.01 --kl_horizon 15") == [
        "--kl_horizon 15 is shorter than a step of 16 samples, which counts as one horizon; use --kl_horizon 16 or more"
    ]
    assert notices("--kl_target 0.01 --kl_horizon 16") == []
    default = "--advantage_estimator cpgd --max_epochs 2"
    assert notices(f"{default} --rollout_batch_size 4000 --train_batch_size 16000") == [], "the plan says it"


def test_a_k1_loss_is_noticed_for_any_estimator_that_is_told_to_use_it():
    by_reinforce = "--advantage_estimator reinforce --use_kl_loss"
    assert notices(f"{by_reinforce} --kl_estimator k1")[0].startswith("--kl_estimator k1 in the loss")
    assert notices(by_reinforce) == [], "k3 is the default there"
    assert notices("--kl_estimator k1 --init_kl_coef 0") == [
        "--kl_estimator k1 cannot matter: --init_kl_coef is 0, so no KL is computed"
    ]


def test_the_usual_range_is_not_that_of_an_estimator_with_another_scale():
    off_policy = "--max_epochs 2 --clip_range 0.01"
    assert notices(off_policy) == ["--clip_range 0.01 is outside the recommended range 0.1 to 0.3"]
    assert notices(f"{off_policy} --advantage_estimator gspo") == []


ON_POLICY = "there is one optimizer step per rollout step, so the ratio is exactly 1"


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "--reward_running_norm --reward_running_norm_minus_mean",
            "--reward_running_norm_minus_mean cannot matter: --advantage_estimator group_norm takes each prompt's mean "
            "off, and there is no --reward_clip",
        ),
        (
            "--reward_running_norm_minus_mean",
            "--reward_running_norm_minus_mean cannot matter: there is no --reward_running_norm",
        ),
        ("--advantage_estimator cpgd --init_kl_coef 0.01", f"--init_kl_coef 0.01 cannot matter: {ON_POLICY}"),
        (
            "--advantage_estimator cpgd --max_epochs 2 --use_clip_higher",
            "--use_clip_higher cannot matter: the clips of --advantage_estimator cpgd are 0.2 and 0.2",
        ),
        (
            "--advantage_estimator cpgd --max_epochs 2 --init_kl_coef 0 --cpgd_drift_cap 1",
            "--cpgd_drift_cap 1.0 cannot matter: --init_kl_coef is 0, so no KL is computed",
        ),
    ],
)
def test_what_can_do_nothing(text: str, line: str):
    assert notices(text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "--reward_running_norm --reward_running_norm_minus_mean --reward_clip 1",
        "--reward_running_norm --reward_running_norm_minus_mean --advantage_estimator reinforce",
        "--advantage_estimator cpgd --init_kl_coef 0.01 --max_epochs 2",
        "--advantage_estimator cpgd --init_kl_coef 0.01 --use_kl_loss",
        "--kl_target 0",
        "--dynamic_sampling --train_batch_size 64 --max_gen_batches 4",
        "--is_correction token_mask --is_low 0.5 --is_cap 1.01",
        "--use_clip_higher --max_epochs 2",
        "--use_fire --fire_mask_first_token --max_new_tokens 2",
        "--is_cap 0.5",
    ],
)
def test_what_can_do_something(text: str):
    assert notices(text) == []


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "--use_clip_higher --max_epochs 2 --clip_range 0.2 --clip_range_higher 0.2",
            "--use_clip_higher, but --clip_range_higher 0.2 is not above --clip_range 0.2; use --clip_range_higher "
            "0.28 or leave it out",
        ),
        (
            "--use_clip_higher --max_epochs 2 --eps_clip 0.1",
            "--use_clip_higher, but --clip_range_higher 0.1 is not above --clip_range 0.1; use --clip_range_higher "
            "0.14 or leave it out",
        ),
        (
            "--dynamic_sampling --train_batch_size 64 --max_gen_batches 3",
            "--max_gen_batches 3 of --rollout_batch_size 4 prompts never fill a step of 16; use --max_gen_batches 12, "
            "at least 4",
        ),
        (
            "--is_correction geometric --is_cap 0.5",
            "--is_correction geometric between 0.0 and 0.5 drops what engine and trainer agree on, whose weight is 1 "
            "up to rounding; use --is_low 0.5 --is_cap 2",
        ),
        (
            "--is_correction token_mask --is_low 1",
            "--is_correction token_mask between 1.0 and 2.0 drops what engine and trainer agree on, whose weight is 1 "
            "up to rounding; use --is_low 0.5 --is_cap 2",
        ),
        (
            "--is_correction sequence_mask --is_cap 1",
            "--is_correction sequence_mask between 0.0 and 1.0 drops what engine and trainer agree on, whose weight is "
            "1 up to rounding; use --is_low 0.5 --is_cap 2",
        ),
        (
            "--use_fire --fire_mask_first_token --max_new_tokens 1",
            "--fire_mask_first_token leaves nothing of --max_new_tokens 1 to train on; use --max_new_tokens 2 or more",
        ),
    ],
)
def test_what_cannot_work(text: str, line: str):
    assert broken_rules(text) == [line]


def test_a_target_of_0_is_a_fixed_coefficient():
    adapted, fixed = (parsed(f"--advantage_estimator cpgd --max_epochs 2 --kl_target {target}") for target in (0.01, 0))
    assert (kl_term(adapted).controller.target, kl_term(fixed).controller.target) == (0.01, None)
