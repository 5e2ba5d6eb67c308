from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg, unbuilt

WITH_CRITIC = "--advantage_estimator gae"
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
    lora_rank: int = unbuilt("distributed", 0, "Rank of LoRA; 0 = train all weights.", "--lora_rank 8", ge=0)
    lora_alpha: float = unbuilt("distributed", 16.0, "LoRA's scale is lora_alpha / lora_rank.", "--lora_alpha 32", gt=0)
    lora_dropout: float = unbuilt("distributed", 0.0, "Dropout before LoRA.", "--lora_dropout 0.1", ge=0, lt=1)
    target_modules: tuple[str, ...] = unbuilt(
        "distributed", ("all-linear",), "Modules that get LoRA.", "--target_modules q_proj v_proj"
    )
    lora_bias: str = unbuilt(
        "distributed",
        "none",
        "Biases that are trained with LoRA.",
        "--lora_bias all",
        choices=("none", "all", "lora_only"),
    )
    lora_learning_rate: float | None = unbuilt(
        "distributed",
        None,
        "Peak learning rate of LoRA's weights.",
        "--lora_learning_rate 1e-4",
        gt=0,
        unset="--actor_learning_rate",
    )
    lora_path: str | None = unbuilt(
        "distributed", None, "PEFT adapter to start from.", "--lora_path folder", unset="a new adapter", path=True
    )
    load_in_4bit: bool = unbuilt("distributed", False, "QLoRA: the frozen weights in 4 bits.", "--load_in_4bit")
    bits: int = unbuilt("distributed", 16, "Bits of the frozen weights.", "--bits 4", choices=(4, 8, 16))
    double_quant: bool = unbuilt(
        "distributed", True, "Quantise the quantisation's own constants too.", "--no-double_quant"
    )
    quant_type: str = unbuilt("distributed", "nf4", "Type of 4 bits.", "--quant_type fp4", choices=("nf4", "fp4"))
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
