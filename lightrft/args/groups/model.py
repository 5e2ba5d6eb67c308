from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt

WITH_CRITIC = "--advantage_estimator gae"
WITH_LORA = "--lora_rank 8"
WITH_4_BITS = "--lora_rank 8 --load_in_4bit"
WITH_IMAGES = (
    "--pretrain tiny_vision --prompt_data seen.jsonl --prompt_max_len 64 --max_len 72 --reward_fn shaped.py:length"
)


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """Model"""

    pretrain: str = arg(
        None,
        "Model and tokenizer to train: a path or a hub name.",
        required=True,
        witness=Witness("--pretrain tiny_other", "metrics"),
        path=True,
    )
    reward_pretrain: tuple[str, ...] = unbuilt(
        "rewards",
        (),
        "Reward models: a path, or name=path.",
        "--reward_pretrain folder",
        unset="no reward model",
        path=True,
    )
    remote_rm_url: tuple[str, ...] = unbuilt(
        "rewards",
        (),
        "Reward servers: an address, or name=address.",
        "--remote_rm_url http://localhost:5000",
        unset="no reward server",
    )
    critic_pretrain: str | None = arg(
        None,
        "Model that the critic starts from, with its value head where it has one.",
        unset="--pretrain",
        witness=Witness("--critic_pretrain tiny_critic", "metrics", given=WITH_CRITIC),
        path=True,
    )
    freezing_actor_steps: int = arg(
        0,
        "Steps at the start in which only the critic learns.",
        ge=0,
        witness=Witness("--freezing_actor_steps 1", "model", given=f"{WITH_CRITIC} --lr_warmup_steps 0"),
    )
    value_head_prefix: str = arg(
        "score",
        "Name of the value head in the critic's weights; one that is not there is new and starts at 0.",
        witness=Witness(
            "--value_head_prefix value_head", "metrics", given=f"{WITH_CRITIC} --critic_pretrain tiny_critic"
        ),
    )
    max_len: int = arg(
        4096, "Tokens of prompt and response together.", ge=2, witness=Witness("--max_len 18", "metrics")
    )
    prompt_max_len: int = arg(
        2048,
        "Tokens of the prompt; below --max_len.",
        ge=1,
        witness=Witness("--prompt_max_len 22", "metrics"),
    )
    max_new_tokens: int = arg(
        None,
        "Response budget in tokens.",
        ge=1,
        aliases=("generate_max_len",),
        derive=lambda values: values["max_len"] - values["prompt_max_len"],
        unset="max_len - prompt_max_len",
        witness=Witness("--max_new_tokens 2", "metrics"),
    )
    attn_implementation: str | None = arg(
        None,
        "Attention kernel of the model.",
        choices=("eager", "sdpa", "flash_attention_2"),
        unset="the model's own",
        witness=Witness("--attn_implementation eager", "run"),
    )
    trust_remote_code: bool = arg(
        False,
        "Run Python code that comes with the model.",
        witness=Witness("--no-trust_remote_code", "refused", given="--pretrain tiny_remote --trust_remote_code"),
    )
    cache_dir: str | None = arg(
        None,
        "Folder of models downloaded from the hub.",
        unset="the hub library's own",
        witness=Witness("--cache_dir no_such_hub", "refused", given="--pretrain tests/tiny --cache_dir hub"),
        path=True,
    )
    disable_fast_tokenizer: bool = arg(
        False,
        "Refused: transformers 5 has one implementation of a tokenizer, no second one in Python.",
        witness=Witness("--disable_fast_tokenizer", "refused"),
    )
    lora_rank: int = arg(
        0,
        "Rank of LoRA: adapters of so many rows train in the place of the policy's weights; 0 = all weights train.",
        ge=0,
        witness=Witness("--lora_rank 8", "files"),
    )
    lora_alpha: float = arg(
        16.0,
        "LoRA's scale is lora_alpha / lora_rank.",
        gt=0,
        witness=Witness("--lora_alpha 32", "metrics", given=WITH_LORA),
    )
    lora_dropout: float = arg(
        0.0,
        "Refused above 0: a policy that drops features in training is another one than the one that sampled.",
        ge=0,
        lt=1,
        witness=Witness("--lora_dropout 0.1", "refused", given=WITH_LORA),
    )
    target_modules: tuple[str, ...] = arg(
        ("all-linear",),
        "Linear layers that get LoRA, by the ends of their names, less those that flags freeze; all-linear = all but "
        "the output head.",
        witness=Witness("--target_modules q_proj v_proj", "metrics", given=WITH_LORA),
    )
    lora_bias: str = arg(
        "none",
        "Biases of the policy that train with LoRA: all, or lora_only, those of layers that have it.",
        choices=("none", "all", "lora_only"),
        witness=Witness("--lora_bias all", "metrics", given=f"{WITH_LORA} --init_kl_coef 0"),
    )
    lora_learning_rate: float | None = arg(
        None,
        "Peak learning rate of LoRA.",
        gt=0,
        recommended=(1e-6, 1e-3),
        unset="--actor_learning_rate where that is set, else ten times its default",
        witness=Witness("--lora_learning_rate 1e-2", "metrics", given=WITH_LORA),
    )
    lora_path: str | None = arg(
        None,
        "PEFT adapter to start from; it brings its rank, scale and layers along.",
        unset="a new adapter",
        path=True,
        witness=Witness("--lora_path tiny_adapter", "metrics", given=WITH_LORA),
    )
    lora_merge: bool = arg(
        False,
        "Export the model with LoRA merged into its weights too, in merged/ beside the adapter.",
        witness=Witness("--lora_merge", "files", given=WITH_LORA),
    )
    load_in_4bit: bool = arg(
        False,
        "QLoRA: --bits 4.",
        witness=Witness("--load_in_4bit", "metrics", given=WITH_LORA),
    )
    bits: int = arg(
        None,
        "Bits of the weights that LoRA's adapters are added to: 4 is QLoRA, of all linear layers but the output head, "
        "and needs bitsandbytes; 8 is refused; 16 leaves them in the run's own precision.",
        choices=(4, 8, 16),
        derive=lambda values: 4 if values["load_in_4bit"] else 16,
        unset="4 with --load_in_4bit, else 16",
        witness=Witness("--bits 4", "metrics", given=WITH_LORA),
    )
    double_quant: bool = arg(
        True,
        "Keep the scales of 4-bit weights in 8 bits: 4.13 bits a weight in the place of 4.5.",
        witness=Witness("--no-double_quant", "metrics", given=WITH_4_BITS),
    )
    quant_type: str = arg(
        "nf4",
        "The 16 values of 4 bits: quantiles of a normal distribution, or floating-point numbers.",
        choices=("nf4", "fp4"),
        witness=Witness("--quant_type fp4", "metrics", given=WITH_4_BITS),
    )
    freeze_prefix: tuple[str, ...] = arg(
        (),
        "Parts of the policy that are not trained, by the start of their parameters' names; visual, vision_tower and "
        "their like mean the vision tower, whatever the model calls it.",
        unset="none",
        witness=Witness("--freeze_prefix model.layers.0", "model"),
    )
    freeze_backbone: bool = arg(
        False,
        "Do not train the policy's language model and its head.",
        witness=Witness("--freeze_backbone", "model", given=WITH_IMAGES),
    )
    tune_projector: bool = arg(
        True,
        "Train the policy's projector between vision tower and language model.",
        witness=Witness("--no-tune_projector", "model", given=WITH_IMAGES),
    )
