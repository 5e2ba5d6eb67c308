"""Mutations of flags that rest on each other."""

from __future__ import annotations

from fuzz_case import Case, mutation
from fuzz_surface import Scalar
from fuzz_texts import right_node, right_text, right_words
from fuzz_truth import ESTIMATORS

NAMES = tuple(ESTIMATORS)
BESIDE = (
    *("clip_range", "clip_range_higher", "kl_estimator", "loss_agg_mode", "high_entropy_token_ratio", "gamma"),
    *("advantages_norm", "cpgd_drift_cap", "kl_target", "dual_clip", "use_kl_loss", "init_kl_coef"),
)
OLDER = ("eps_clip", "use_clip_higher", "use_gspo", "use_cpg_loss", "advantage_estimator", "clip_range")
OLDER += ("clip_range_higher",)
OLD_SWITCHES = ("use_gspo", "use_cpg_loss", "use_clip_higher")


def _set(case: Case, name: str, text: str) -> None:
    """In a file or on the command line; a switch as true or false."""
    entry = case.fields[name]
    if case.random.random() < 0.3:
        case.write_in_yaml(entry, Scalar(text))
    elif entry.is_switch:
        case.switch(entry)
    else:
        case.type(entry, [text])


@mutation
def estimator(case: Case) -> None:
    """With a flag that it may have a default of its own for, or that it cannot heed."""
    _set(case, "advantage_estimator", case.random.choice(NAMES))
    other = case.fields[case.random.choice(BESIDE)]
    if other.is_switch or case.random.random() < 0.3:
        case.write_in_yaml(other, right_node(case.random, other))
    else:
        case.type(other, right_words(case.random, other))


@mutation
def of_the_algorithm(case: Case) -> None:
    """Two flags of what is learned, and from what."""
    groups = ("algorithm", "algorithm", "sampling", "rewards")
    for group in case.random.sample(groups, 2):
        names = [entry.name for entry in case.fields.values() if entry.group == group and not entry.unbuilt]
        entry = case.fields[case.random.choice(names)]
        if entry.is_switch or case.random.random() < 0.3:
            case.write_in_yaml(entry, right_node(case.random, entry))
        else:
            case.type(entry, right_words(case.random, entry))


@mutation
def older_switches(case: Case) -> None:
    """Two or three of them, or of what they mean; few values, so that some agree."""
    for name in case.random.sample(OLDER, case.random.choice((2, 2, 3))):
        texts = {"advantage_estimator": NAMES, **dict.fromkeys(OLD_SWITCHES, ("true", "false"))}
        _set(case, name, case.random.choice(texts.get(name, ("0.1", "0.2", "3e-4"))))


@mutation
def older_switch_beside_a_fault(case: Case) -> None:
    for name in case.random.sample(OLDER, 2):
        _set(case, name, case.random.choice(("gspoo", "gae", "nan", "null", "1.5", "''")))
    switch = case.random.choice(OLD_SWITCHES)
    _set(case, switch, case.random.choice(("true", "false")))


@mutation
def null_switch(case: Case) -> None:
    """Which leaves it unset."""
    for name in ("eps_clip", "use_clip_higher"):
        case.write_in_yaml(case.fields[name], Scalar(case.random.choice(("null", "~", ""))))


@mutation
def schedule_together(case: Case) -> None:
    _set(case, "temperature_schedule", case.random.choice(("constant", "linear", "cosine")))
    _set(case, "temperature_final", case.random.choice(("0.5", "2", "null", "0")))


@mutation
def overlong_together(case: Case) -> None:
    case.switch(case.fields["overlong_buffer"])
    _set(case, "overlong_buffer_len", case.random.choice(("1", "8", "64", "3000")))
    if case.random.random() < 0.7:
        _set(case, case.random.choice(("max_new_tokens", "prompt_max_len")), case.random.choice(("8", "64", "5000")))


@mutation
def correction_together(case: Case) -> None:
    _set(case, "is_correction", right_text(case.random, case.fields["is_correction"]))
    _set(case, "is_low", case.random.choice(("0.5", "2", "3")))
    if case.random.random() < 0.5:
        _set(case, "is_cap", case.random.choice(("0.5", "2", "5")))


@mutation
def alone_together(case: Case) -> None:
    """One sample per prompt, which some estimators can do with."""
    _set(case, "n_samples_per_prompt", "1")
    _set(case, "advantage_estimator", case.random.choice(("reinforce", "reinforce", "cpgd")))
    case.switch(case.fields["dynamic_sampling"])


@mutation
def target_together(case: Case) -> None:
    _set(case, "kl_horizon", case.random.choice(("1", "10", "1000")))
    _set(case, "init_kl_coef", case.random.choice(("0", "1e-3")))
    if case.random.random() < 0.7:
        _set(case, "kl_target", "0.005")
    _set(case, "advantage_estimator", case.random.choice(NAMES))
    _set(case, "max_epochs", case.random.choice(("1", "2")))
