"""Mutations of the command line."""

from __future__ import annotations

import re

from fuzz_case import Case, mutation
from fuzz_surface import Field
from fuzz_texts import NASTY, bound_text, misspelt, right_node, right_text, right_words
from fuzz_truth import Fault, Good

SEVERAL = 3  # faults in one case: each has its own line
DOTTED = ("worker.actor.optim.lr=1e-5", "trainer.seed=1", "a.b.c=value", "+x.y=2", "++algorithm.use_kl_loss=False")
STRAYS = ("stray", "3", "a b", "-5", "-1e-3", "data.jsonl", "seed=3")
UNKNOWN = ("--qqqq", "-x", "-seed", "--", "--no-such-flag", "--sееd", "--_", "--seed.x", "---seed")
UNBUILT_CHOICES = {"engine_type": ("vllm", "sglang")}


# Flags with values


@mutation
def typed(case: Case) -> None:
    entry = case.any_field()
    if entry.is_switch:
        case.switch(entry)
    else:
        case.type(entry, right_words(case.random, entry))


@mutation
def typed_twice(case: Case) -> None:
    entry = case.any_field(switch=False)
    case.type(entry, right_words(case.random, entry))
    case.type(entry, right_words(case.random, entry))


@mutation
def glued(case: Case) -> None:
    entry = case.any_field(switch=False)
    texts = [right_words(case.random, entry)[:1] or ["json"], [case.random.choice(NASTY)]]
    case.type(entry, case.random.choice(texts), glued=True)


@mutation
def at_a_bound(case: Case) -> None:
    for _ in range(SEVERAL):
        entry = case.any_number()
        _last_word(case, entry, bound_text(case.random, entry))


@mutation
def nasty(case: Case) -> None:
    for _ in range(SEVERAL):
        _last_word(case, case.any_number(), case.random.choice(NASTY))


def _last_word(case: Case, entry: Field, text: str) -> None:
    """Right words but for the last. Where it comes second, argparse knows plain negative numbers only."""
    words = right_words(case.random, entry)[:-1]
    if words and re.match(r"-.*[^\d.]", text):
        text = "-5"
    case.type(entry, [*words, f"a={text}" if entry.shape == "pairs" else text])


@mutation
def sizes_together(case: Case) -> None:
    """Batch sizes, some of which fit each other."""
    numbers = ("1", "2", "3", "4", "6", "8", "12", "16", "24", "48", "64")
    names = ("rollout_batch_size", "train_batch_size", "n_samples_per_prompt", "micro_train_batch_size")
    for name in case.random.sample(names, 2):
        case.type(case.fields[name], [case.random.choice(numbers)])


@mutation
def lengths_together(case: Case) -> None:
    for name in ("max_len", "prompt_max_len", "max_new_tokens")[: case.random.randint(2, 3)]:
        case.type(case.fields[name], [case.random.choice(("63", "64", "65", "128", "129", "192"))])


@mutation
def sources_together(case: Case) -> None:
    """A share for each source, or for all but one."""
    count = case.random.randint(1, 3)
    case.type(case.fields["prompt_data"], [right_text(case.random, case.fields["prompt_data"]) for _ in range(count)])
    shares = case.random.choice((count, count, max(1, count - 1)))
    case.type(case.fields["prompt_data_probs"], ["0.5"] * shares)


@mutation
def precision_together(case: Case) -> None:
    for name in case.random.sample(("fp16", "bf16", "fsdp", "fsdp_cpu_offload"), 3):
        case.switch(case.fields[name])


@mutation
def kl_together(case: Case) -> None:
    case.type(case.fields["init_kl_coef"], [case.random.choice(("0", "0.0", "1e-3"))])
    case.switch(case.fields["use_kl_loss"])
    case.type(case.fields["advantage_estimator"], [case.random.choice(("group_norm", "reinforce", "cpgd"))])


@mutation
def no_value(case: Case) -> None:
    entry = case.random.choice((case.any_field(switch=False), case.fields["config"]))
    if not entry.alone:
        case.type(entry, [])


@mutation
def surplus_value(case: Case) -> None:
    entry = case.random.choice((case.any_field(switch=False, shape="one"), case.fields["adam_betas"]))
    case.type(entry, [*(right_words(case.random, entry) or ["json"]), case.random.choice(("0.5", "stray", "-3"))])


@mutation
def stray_after_glued(case: Case) -> None:
    word = right_text(case.random, case.fields["seed"])
    case.add([f"--seed={word}", "stray"], Good("seed", int(word), "cli"), Fault("'stray'", sure=False))


@mutation
def switch_with_value(case: Case) -> None:
    words = case.random.choice((("true",), ("false",), ("1",), ("a", "b")))
    case.switch(case.any_field(switch=True), words)


@mutation
def no_before_a_value_flag(case: Case) -> None:
    entry = case.any_field(switch=False)
    case.add([f"--no-{entry.name}", *case.random.choice(([], ["3"]))], Fault(f"--no-{entry.name}"))


@mutation
def strict(case: Case) -> None:
    case.switch(case.fields["strict_args"])


# Words that are no flags


@mutation
def unknown(case: Case) -> None:
    option = case.random.choice(UNKNOWN)
    case.add([option] if option == "--" else [option, "3"], Fault(re.escape(option)), front=option == "--")


@mutation
def misspelt_flag(case: Case) -> None:
    name = misspelt(case.random, case.random.choice(sorted(case.taken)), case.taken)
    words = case.random.choice(([f"--{name}", "3"], [f"--{name}=3"], [f"--{name}"]))
    case.add(words, Fault(re.escape(f"--{name}")))


@mutation
def dotted(case: Case) -> None:
    word = case.random.choice(DOTTED)
    case.add([word], Fault(re.escape(word)), front=True)


@mutation
def stray(case: Case) -> None:
    word = case.random.choice(STRAYS)
    case.add([word], Fault(re.escape(repr(word))), front=True)


# What is not built, and what is missing


@mutation
def unbuilt(case: Case) -> None:
    """Its line is expected by the rules."""
    entry = case.any_field(unbuilt=True)
    if entry.is_switch:
        case.switch(entry)
    else:
        case.type(entry, right_words(case.random, entry))


@mutation
def unbuilt_in_yaml(case: Case) -> None:
    entry = case.any_field(unbuilt=True)
    case.write_in_yaml(entry, right_node(case.random, entry))


@mutation
def unbuilt_choice(case: Case) -> None:
    name = case.random.choice(list(UNBUILT_CHOICES))
    case.type(case.fields[name], [case.random.choice(UNBUILT_CHOICES[name])])


@mutation
def required_left_out(case: Case) -> None:
    required = {entry.name for entry in case.fields.values() if entry.required}
    found = [chunk for chunk in case.chunks if chunk.words[0].removeprefix("--") in required]
    if found:
        case.chunks.remove(case.random.choice(found))
