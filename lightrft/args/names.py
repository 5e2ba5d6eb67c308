"""What to say about a name that is no flag of ours."""

from __future__ import annotations

import difflib
import re

from lightrft.args.surface import FLAGS, NAMES

DOTTED = re.compile(r"\+{0,2}(?P<path>[A-Za-z_]\w*(\.[A-Za-z_]\w*)+)=(?P<value>.*)", re.DOTALL)

# Names that users bring along from other trainers' configuration files; a part below `worker.` may also stand
# below `actor_rollout_ref.`, as in verl.
FOREIGN = {
    "algorithm.adv_estimator": "advantage_estimator",
    "algorithm.kl_coef": "init_kl_coef",
    "algorithm.kl_ctrl.kl_coef": "init_kl_coef",
    "algorithm.kl_penalty": "kl_estimator",
    "algorithm.use_kl_loss": "use_kl_loss",
    "data.max_prompt_length": "prompt_max_len",
    "data.max_response_length": "max_new_tokens",
    "data.prompt_key": "input_key",
    "data.rollout_batch_size": "rollout_batch_size",
    "data.train_batch_size": "rollout_batch_size",
    "data.train_files": "prompt_data",
    "data.val_files": "eval_data",
    "grpo.beta": "init_kl_coef",
    "grpo.num_generations": "n_samples_per_prompt",
    "trainer.default_local_dir": "save_path",
    "trainer.max_steps": "max_steps",
    "trainer.save_freq": "save_steps",
    "trainer.test_freq": "eval_steps",
    "trainer.total_epochs": "num_episodes",
    "trainer.total_training_steps": "max_steps",
    "training.learning_rate": "actor_learning_rate",
    "training.num_train_epochs": "num_episodes",
    "training.warmup_steps": "lr_warmup_steps",
    "worker.actor.clip_ratio": "clip_range",
    "worker.actor.clip_ratio_high": "clip_range_higher",
    "worker.actor.clip_ratio_low": "clip_range",
    "worker.actor.grad_clip": "max_norm",
    "worker.actor.kl_loss_coef": "init_kl_coef",
    "worker.actor.kl_loss_type": "kl_estimator",
    "worker.actor.loss_agg_mode": "loss_agg_mode",
    "worker.actor.lr": "actor_learning_rate",
    "worker.actor.max_grad_norm": "max_norm",
    "worker.actor.micro_batch_size": "micro_train_batch_size",
    "worker.actor.optim.lr": "actor_learning_rate",
    "worker.actor.optim.lr_warmup_steps": "lr_warmup_steps",
    "worker.actor.optim.weight_decay": "l2",
    "worker.actor.ppo_epochs": "max_epochs",
    "worker.actor.use_kl_loss": "use_kl_loss",
    "worker.model.path": "pretrain",
    "worker.rollout.gpu_memory_utilization": "engine_mem_util",
    "worker.rollout.n": "n_samples_per_prompt",
    "worker.rollout.name": "engine_type",
    "worker.rollout.temperature": "temperature",
    "worker.rollout.tensor_model_parallel_size": "engine_tp_size",
    "worker.rollout.top_k": "top_k",
    "worker.rollout.top_p": "top_p",
}


VALUES = {  # names of others for our choices
    ("advantage_estimator", "grpo"): "group_norm",
    ("advantage_estimator", "reinforce_plus_plus"): "reinforce",
    ("advantage_estimator", "reinforce_plus_plus_baseline"): "reinforce_baseline",
    ("kl_estimator", "low_var_kl"): "k3",
    ("kl_estimator", "kl"): "k1",
    ("kl_estimator", "mse"): "k2",
}

# Flags of TRL and OpenRLHF that mean one of ours.
OTHERS = {
    "beta": "init_kl_coef",
    "dataset_name": "prompt_data",
    "epsilon": "clip_range",
    "epsilon_high": "clip_range_higher",
    "kl_coef": "init_kl_coef",
    "kl_loss_coef": "init_kl_coef",
    "learning_rate": "actor_learning_rate",
    "logging_dir": "use_tensorboard",
    "loss_type": "loss_agg_mode",
    "lr": "actor_learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "max_completion_length": "max_new_tokens",
    "max_grad_norm": "max_norm",
    "max_prompt_length": "prompt_max_len",
    "model_name_or_path": "pretrain",
    "num_generations": "n_samples_per_prompt",
    "num_iterations": "max_epochs",
    "num_train_epochs": "num_episodes",
    "optim": "optimizer",
    "output_dir": "save_path",
    "per_device_train_batch_size": "micro_train_batch_size",
    "resume_from_checkpoint": "load_checkpoint",
    "reward_funcs": "reward_fn",
    "warmup_ratio": "lr_warmup_ratio",
    "warmup_steps": "lr_warmup_steps",
    "weight_decay": "l2",
}


def about_dotted(word: str) -> str | None:
    """Why `a.b.c=value` is refused, with the flag that means the same; None for any other word."""
    match = DOTTED.fullmatch(word)
    if match is None:
        return None
    path, value = match["path"], match["value"]
    flag = FOREIGN.get(re.sub(r"^actor_rollout_ref\.", "worker.", path))
    if flag is None:
        return f"{word} is a dotted override, and there are none here{_nearest(path.rpartition('.')[2], '--')}"
    return f"{word}: use {_as_flag(flag, value)}"


def about_unknown(name: str, dashes: str = "--") -> str:
    """`name` without dashes; `dashes` as the user writes them, none in YAML."""
    shown = name if name.isprintable() else repr(name)
    if name in OTHERS:
        return f"{dashes}{shown} is not a flag; use {dashes and '--'}{OTHERS[name]}"
    return f"{dashes}{shown} is not a flag{_nearest(name, dashes and '--')}"


def _as_flag(flag: str, value: str) -> str:
    value = VALUES.get((flag, value), value)
    if not FLAGS[flag].is_switch:
        return f"--{flag} {value}"
    return f"--no-{flag}" if value.lower() == "false" else f"--{flag}"


def _nearest(name: str, dashes: str) -> str:
    switches = [f"no-{flag.name}" for flag in FLAGS.values() if flag.is_switch and dashes]
    close = difflib.get_close_matches(name, [*NAMES, *switches], n=1)
    return f"; nearest: {dashes}{close[0]}" if close else "; --help lists them all"
