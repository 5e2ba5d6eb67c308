"""Tiny random models of any causal family of transformers, by the names that configurations give to sizes."""

from __future__ import annotations

from typing import Any

VOCABULARY = 60
SIZES = {  # the families' own words for the same few things; a configuration gets those that it knows
    VOCABULARY: "vocab_size vocab_size_per_layer_input",
    32: "hidden_size d_model n_embd n_embed word_embed_proj_dim embedding_size emb_dim embedding_dim dim lru_width",
    48: "intermediate_size ffn_dim n_inner ffn_hidden_size d_ff decoder_ffn_dim encoder_ffn_dim hidden_dim inner_dim "
    "shared_intermediate_size moe_intermediate_size shared_expert_intermediate_size intermediate_size_mlp "
    "moe_hidden_size",
    4: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_blocks num_attention_heads n_head n_heads "
    "num_heads decoder_attention_heads encoder_attention_heads attention_heads rotary_dim qk_nope_head_dim "
    "qk_rope_head_dim num_experts num_local_experts n_routed_experts moe_num_experts mamba_dt_rank time_step_rank "
    "linear_num_key_heads linear_num_value_heads linear_conv_kernel_dim index_n_heads",
    2: "encoder_layers num_key_value_heads num_kv_heads n_kv_heads num_experts_per_tok moe_k num_experts_per_token "
    "moe_topk mamba_expand n_mamba_heads",
    8: "head_dim attention_head_dim d_kv swa_head_dim global_head_dim v_head_dim qk_head_dim state_size mamba_d_state "
    "mamba_d_head mamba_n_heads mamba_num_heads mamba_head_dim ssm_state_size chunk_size mamba_chunk_size "
    "attention_window_size sliding_window attention_chunk_size local_attention window_size linear_key_head_dim "
    "linear_value_head_dim block_size index_head_dim hidden_size_per_layer_input",
    16: "kv_lora_rank q_lora_rank",
    64: "mamba_d_ssm index_topk",
    1: "n_shared_experts n_group topk_group moe_num_shared_experts num_shared_expert mamba_n_groups n_groups "
    "bos_token_id",
    256: "max_position_embeddings n_positions n_ctx max_seq_len context_length",
    0: "num_kv_shared_layers pad_token_id num_nextn_predict_layers",
}
SMALL: dict[str, Any] = {name: size for size, names in SIZES.items() for name in names.split()}
SMALL |= {"eos_token_id": 2, "is_decoder": True, "use_mamba_kernels": False}

LATENT = {"num_key_value_heads": 4, "head_dim": 4}  # attention through a latent space: all heads have keys of their own
OWN: dict[str, dict[str, Any]] = {
    "mamba2": {"head_dim": 8, "num_heads": 8},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "zaya": {"num_experts_per_tok": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1, 3]},
    "zamba": {"layers_block_type": ["mamba", "hybrid"] * 2},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "mamba_ngroups": 1, "n_mamba_heads": 8},
    "granitemoehybrid": {"layers_block_type": ["mamba", "attention"] * 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"] * 2},
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "minimax": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "reformer": {"axial_pos_shape": (16, 16), "axial_pos_embds_dim": (16, 16)},
    **dict.fromkeys(
        ["axk1", "axk2", "youtu", "minicpm3", "sarvam_mla", "deepseek_v2", "deepseek_v3", "deepseek_v32"]
        + ["glm_moe_dsa", "longcat_flash", "glm4_moe_lite"],
        LATENT,
    ),
}


def tiny(name: str, **changes: Any) -> Any:
    """A model of the family `name` (its model_type) with some thousand parameters and lively weights, in float32.

    Raises whatever the library does where these sizes make no model of that family.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[name]
    config: Any = kind(**_known(kind, {**SMALL, **OWN.get(name, {}), **changes}, OWN.get(name, {}).keys() | changes))
    with torch.device("meta"):
        count = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if count > 5e6:
        raise ValueError(f"{name} still has {count / 1e6:.0f} million parameters")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    return model


def _known(kind: Any, sizes: dict[str, Any], always: Any) -> dict[str, Any]:
    """Those that a configuration of `kind` has and lets one set."""
    default = kind()

    def settable(name: str) -> bool:
        name = getattr(kind, "attribute_map", {}).get(name, name)
        found = next((base.__dict__[name] for base in kind.__mro__ if name in base.__dict__), None)
        return hasattr(default, name) and (not isinstance(found, property) or found.fset is not None)

    return {name: value for name, value in sizes.items() if name in always or settable(name)}
