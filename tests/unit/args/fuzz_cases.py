"""Command lines drawn at random, in pieces that can be taken out, moved and written otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random

from command_lines import BASE

from lightrft.args.surface import FLAGS, Flag

NAMES = ("cpgd", "gae", "group_norm", "gspo", "reinforce")  # of conftest.py
TEXTS = {
    "prompt_data": ("add.jsonl", "data/b.csv", "reasoning_gym:chain_sum", "org/name"),
    "eval_data": ("add.jsonl", "reasoning_gym:chain_sum"),
    "advantage_estimator": NAMES,
    "assume_gpus": ("1x80GB", "1x24gb", "8x"),
}
WORDS = ("a", "run/x.y", "ü", "a b", "true", "null", "010", "1e-6", "a: b", "%d", "a=b", "it's")
NASTY = ("", "many", "nan", "-inf", "1e999", "1_000", "１２", "0x10", "010", "1,5", "3.5", "-1e-3", "-5", "5%")
NASTY += ("1" * 20,)
UNKNOWN = ("--qqqq", "-x", "--sееd", "--seed.x", "worker.actor.optim.lr=1e-5", "a.b.c=value", "stray", "-1e-3", "--")
UNKNOWN += ("--max_step", "--no-seed", "--no-fspd", "--TEMPERATURE", "--learning_rate=3")

# Flags that rest on each other, with few values each, so that they meet at the edges of the rules.
TOGETHER = """
rollout_batch_size=2,4,6 train_batch_size=3,8,16,24,64 n_samples_per_prompt=1,2,4 micro_train_batch_size=1,2,3
dynamic_sampling max_gen_batches=1,2,3,4 train_batch_size=16,48,64 n_samples_per_prompt=1 advantage_estimator=reinforce
max_len=64,65,128 prompt_max_len=63,64,127 max_new_tokens=1,2,64 overlong_buffer overlong_buffer_len=1,8,64 use_fire
max_new_tokens=1,2 use_fire fire_mask_first_token first_token_temperature=5 top_p=0.9,1 top_k=-1,50
top_k=-1,0,1 n_samples_per_prompt=1,2,4 advantage_estimator=reinforce,group_norm min_p=0,0.1
prompt_data=add.jsonl,reasoning_gym:x prompt_data_probs=0.5 prompt_split=x eval_data=a.csv eval_split=x
fp16 bf16 fsdp fsdp_cpu_offload zero_stage=3
init_kl_coef=0,0.001 use_kl_loss advantage_estimator=cpgd,reinforce,group_norm kl_estimator=k1,k3 max_epochs=1,2
kl_target=0,0.01 kl_horizon=15,16,17 init_kl_coef=0,0.001 advantage_estimator=cpgd max_epochs=2 cpgd_drift_cap=2
is_correction=off,token_mask,geometric,sequence_truncate is_low=0.5,1,2,3 is_cap=0.5,1,2,3
clip_range=3e-4,0.05,0.2 clip_range_higher=3e-4,0.06,0.2 use_clip_higher advantage_estimator=gspo,cpgd,gae max_epochs=2
eps_clip=0.1,0.2 clip_range=0.1,0.2 use_clip_higher use_gspo use_cpg_loss advantage_estimator=gspo,cpgd max_epochs=2
temperature_schedule=constant,linear temperature_final=0.5 temperature_schedule_steps=3
advantage_estimator=gae actor_learning_rate=1e-6,9e-6,1e-5 critic_learning_rate=1e-6,9e-6 value_head_prefix=score,v.x
advantage_estimator=gae freezing_actor_steps=2,3 max_steps=2,3 value_clip=0.2 max_epochs=1,2 num_episodes=2
reward_running_norm reward_running_norm_minus_mean reward_clip=0,1 advantages_norm advantage_estimator=reinforce,cpgd
advantage_estimator=gspo high_entropy_token_ratio=0,0.5,1 loss_agg_mode=token-mean share_prompts max_epochs=2
max_steps=2,3 save_steps=2,3,4 eval_steps=3,4 eval_data=add.jsonl profile_steps=1,4 quiet logging_steps=2
optimizer=sgd,adamw adam_epsilon=1e-8 use_wandb=a wandb_org=b save_trajectories num_trajectories_to_save=3
mode=local,cluster lr_warmup_steps=0 lr_warmup_ratio=0 train_batch_size=12,32
"""


@dataclass(frozen=True)
class Piece:
    """Words of the command line; with `value`, as YAML writes it, `flag` may stand in a file as well."""

    flag: str  # "" for words that are none of ours
    words: tuple[str, ...]
    value: str | None = None
    is_odd: bool = False  # probably no value of the flag

    def by(self, name: str) -> Piece:
        """The same under another name of the flag."""
        return Piece(self.flag, (f"--{name}", *self.words[1:]), self.value, self.is_odd)


def base() -> list[Piece]:
    words = BASE.split()
    return [piece(FLAGS[name.removeprefix("--")], word) for name, word in zip(words[::2], words[1::2], strict=True)]


def piece(flag: Flag, *texts: str) -> Piece:
    """A flag with values; a switch is on or off by the text."""
    if flag.is_switch:
        return Piece(flag.name, (f"--{flag.name}" if texts == ("true",) else f"--no-{flag.name}",), texts[0])
    shown = [json.dumps(text) if flag.kind.of is str or flag.kind.shape == "pairs" else text for text in texts]
    value = shown[0] if flag.kind.shape == "one" and shown else f"[{', '.join(shown)}]"
    return Piece(flag.name, (f"--{flag.name}", *texts), value)


def good(random: Random, flag: Flag) -> Piece:
    """A value that the flag takes by itself."""
    if flag.is_switch:
        return piece(flag, random.choice(("true", "false")))
    if flag.kind.shape == "pairs":
        return piece(
            flag, *(f"{name}={random.choice((-1, 0.5, 2))}" for name in random.sample(("a", "x.py:f", "c=d"), 2))
        )
    count = flag.kind.count or (random.randint(1, 3) if flag.kind.shape == "list" else 1)
    return piece(flag, *(_text(random, flag) for _ in range(count)))


def _text(random: Random, flag: Flag) -> str:
    allowed = TEXTS.get(flag.name) or flag.record.allowed()
    if allowed or flag.kind.of is str:
        return str(random.choice(allowed or WORDS))
    numbers = (0, 1, 2, 3, 4, 8, 100, 5000) if flag.kind.of is int else (0.0, 1e-6, 0.01, 0.25, 0.9, 1.0, 2.5, 100.0)
    return str(random.choice([number for number in numbers if flag.record.violation(number) is None]))


def odd(random: Random, flag: Flag) -> Piece:
    """Too many values or none, a text that is no value, or a number beyond a bound."""
    limits = [limit for limit in (flag.record.ge, flag.record.gt, flag.record.le, flag.record.lt) if limit is not None]
    beside = [f"{limit + step:g}" for limit in limits for step in (-1, 0, 1)]
    texts = random.choice(([], ["0.5", "a", "b"], *([text] for text in (*NASTY, *beside, *beside))))
    return Piece(flag.name, (f"--{flag.name}", *texts), is_odd=True)


def together(random: Random, line: str) -> list[Piece]:
    """Some flags of a line of TOGETHER."""
    entries = line.split()
    chosen = random.sample(entries, min(len(entries), random.choice((2, 3, 4))))
    cut = [entry.partition("=") for entry in chosen]
    return [piece(FLAGS[name], random.choice(texts.split(",") if is_valued else ("true", "true", "false")))
            for name, is_valued, texts in cut]  # fmt: skip


def draw(seed: int) -> list[Piece]:
    """The base and some more: mostly flags that rest on each other, now and then what is odd or unknown."""
    random = Random(seed)
    drawn = together(random, random.choice(TOGETHER.strip().splitlines()))
    flags = [flag for flag in FLAGS.values() if flag.name not in ("config", "strict_args", "print_args")]
    drawn += [good(random, random.choice(flags)) for _ in range(random.choice((0, 0, 1, 2, 4)))]
    if seed % 3 == 0:
        drawn += [odd(random, random.choice(flags)) for _ in range(random.choice((1, 2, 3)))]
    if seed % 10 == 0:
        drawn.append(Piece("", (random.choice(UNKNOWN),)))
    if seed % 4 == 0:
        drawn.append(piece(FLAGS["strict_args"], "true"))
    given = {entry.flag for entry in drawn}
    kept = [entry for entry in base() if entry.flag not in given and random.random() > 0.01]
    return [*kept, *random.sample(drawn, len(drawn))]


def argv(pieces: Iterable[Piece]) -> list[str]:
    """What is no flag stands first, where no flag can take it for a value."""
    return [word for entry in sorted(pieces, key=lambda entry: entry.flag != "") for word in entry.words]


def otherwise(random: Random, pieces: list[Piece], file: Path) -> list[str]:
    """The same in another order, by other names, and in part in a file, flat or under the flags' groups.

    What is said twice stays on the command line, in its order.
    """
    flags = [entry.flag for entry in pieces]
    free = [entry for entry in pieces if flags.count(entry.flag) == 1 and not entry.is_odd and entry.flag]
    bound = [entry for entry in pieces if entry not in free]
    free = [entry if len(entry.words) == 1 else entry.by(random.choice((entry.flag, *FLAGS[entry.flag].record.aliases)))
            for entry in random.sample(free, len(free))]  # fmt: skip
    filed = [entry for entry in free if random.random() < 0.5]
    lines = [f"{entry.words[0].removeprefix('--').removeprefix('no-')}: {entry.value}" for entry in filed]
    if random.random() < 0.5:
        pairs = sorted(zip((FLAGS[entry.flag].group for entry in filed), lines, strict=True))
        lines = [text for group, found in groupby(pairs, lambda pair: pair[0])
                 for text in (f"{group}:", *(f"  {line}" for _, line in found))]  # fmt: skip
    file.write_text("\n".join(lines) + "\n")
    return argv([Piece("config", ("--config", str(file))), *(entry for entry in free if entry not in filed), *bound])


def in_one_way(line: str) -> str:
    """A line without the place that it speaks of: every setting as if it had been typed by the flag's own name."""
    line = re.sub(r"\S+\.yaml:\d+: (?=\w)", "--", line)
    line = re.sub(r"\(\S+\.yaml:\d+", "(cli", line)
    return re.sub(r"--(\w+)", lambda match: f"--{ALIASES.get(match[1], match[1])}", line)


ALIASES = {alias: flag.name for flag in FLAGS.values() for alias in flag.record.aliases}
