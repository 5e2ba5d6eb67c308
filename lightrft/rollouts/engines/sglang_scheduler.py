"""What runs in the processes in which SGLang holds the model: our noise and filters in its sampler, and fingerprints.

SGLang draws from a seed of each request only under `enable_deterministic_inference`, whose kernels want a GPU and which
knows no min_p; its top_p counts from the whole distribution even where top_k has cut it; it has no temperature for the
first token, and looks for texts only where it makes text. Here a token is drawn by the rules of `engines/sampling.py`
from the noise of `engines/noise.py`, and a response ends where the local engine ends it.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.noise import uniforms
from lightrft.rollouts.engines.sampling import inverse_cdf, keep
from lightrft.rollouts.engines.sglang_names import made_of
from lightrft.rollouts.engines.traces import MARK_VARIABLE

if TYPE_CHECKING:
    from torch import Tensor

QKV = 3  # tensors that one of SGLang's is made of
WHOLE_VOCABULARY = 1 << 30  # SGLang's word for a top_k that is off
UNSIGNED = (1 << 64) - 1


def run_scheduler(server_args: Any, *args: Any, **kwargs: Any) -> None:
    """In place of SGLang's own function of that kind, which it calls."""
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.layers.sampler import register_sampler_backend
    from sglang.srt.managers import mm_schedule
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.managers.scheduler import Scheduler, run_scheduler_process
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

    mark_shared_memory()
    register_sampler_backend("pytorch", make_sampler)
    SamplingBatchInfo.from_schedule_batch = classmethod(with_noise(SamplingBatchInfo.from_schedule_batch))
    Scheduler.write_fingerprints = write_fingerprints
    Scheduler.flush_cache = with_images(Scheduler.flush_cache, mm_schedule)
    ModelConfig._get_hf_eos_token_id = lambda self: set()  # a request names the ids that end it
    Req._check_token_based_finish = with_texts(Req._check_token_based_finish, Texts(server_args))
    run_scheduler_process(server_args, *args, **kwargs)


def mark_shared_memory() -> None:
    """So that it is known whose it is (engines/traces.py)."""
    from sglang.srt.distributed import parallel_state
    from sglang.srt.distributed.device_communicators import shm_broadcast
    from sglang.srt.managers import mm_utils

    for module in (parallel_state, shm_broadcast, mm_utils):
        module.make_shm_name = lambda kind: f"sgl_shm_{kind}_{os.environ[MARK_VARIABLE]}{uuid4().hex[:8]}"


def with_images(original: Callable[..., bool], kept: Any) -> Callable[..., bool]:
    """A method of SGLang's Scheduler that forgets keys and values, and would keep what the tower made of images with
    weights that are gone. kept: SGLang's module that has it as `embedding_cache`."""

    def flush_cache(self: Any, *args: Any, **kwargs: Any) -> bool:
        if kept.embedding_cache is not None:
            kept.embedding_cache.clear()
        return original(self, *args, **kwargs)

    return flush_cache


class Drawing:
    """How the requests that run now are drawn: SGLang answers one list of requests at a time, of one `Sampling`.
    unwritten: ids that have no probability, as in the trainer's model."""

    sampling = Sampling(1)
    unwritten: Sequence[int] = ()


def with_noise(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hands each request's noise to the sampler in `sampling_seed`, which SGLang keeps in step with its batches."""

    def from_schedule_batch(_: type, batch: Any, vocab_size: int) -> Any:
        import torch

        info = original(batch, vocab_size)
        Drawing.sampling = _sampling(batch.reqs[0].sampling_params)
        Drawing.unwritten = batch.reqs[0].sampling_params.custom_params["unwritten"]
        seeds = [(each.sampling_params.sampling_seed or 0) & UNSIGNED for each in batch.reqs]
        noise = torch.from_numpy(uniforms(seeds, Drawing.sampling.max_new_tokens))
        first = torch.tensor([[len(each.origin_input_ids) - 1.0] for each in batch.reqs], dtype=torch.float64)
        info.sampling_seed = torch.cat([first, noise], dim=1).to(batch.device, non_blocking=True)
        return info

    return from_schedule_batch


def _sampling(asked: Any) -> Sampling:
    """Its `max_new_tokens` is what we asked for: SGLang lowers its own to the room that one request has."""
    ours, top_k = asked.custom_params, -1 if asked.top_k >= WHOLE_VOCABULARY else asked.top_k
    filters = {"top_p": asked.top_p, "top_k": top_k, "min_p": asked.min_p}
    return Sampling(ours["new_tokens"], **filters, first_temperature=ours["first_temperature"])


class Texts:
    """What tokens are as text, for those that end a response. The tokenizer is loaded when one is looked for."""

    def __init__(self, server_args: Any) -> None:
        self.server_args, self.tokenizer = server_args, None

    def of(self, token_ids: list[int]) -> str:
        if self.tokenizer is None:
            from transformers import AutoTokenizer

            trusted = self.server_args.trust_remote_code
            self.tokenizer = AutoTokenizer.from_pretrained(self.server_args.model_path, trust_remote_code=trusted)
        return self.tokenizer.decode(token_ids)


def with_texts(original: Callable[..., bool], texts: Texts) -> Callable[..., bool]:
    """A method of SGLang's Req, asked after each token: whether its response has ended."""

    def check(self: Any, new_accepted_tokens: list[int]) -> bool:
        ours = self.sampling_params.custom_params or {}
        if original(self, new_accepted_tokens) or not ours.get("stop"):
            return self.finished_reason is not None
        tail = texts.of(list(self.output_ids[-ours["stop_window"] :]))
        found = next((text for text in ours["stop"] if text in tail), None)
        if found is not None:
            from sglang.srt.managers.schedule_batch import FINISH_MATCHED_STR

            self.finished_reason, self.finished_len = FINISH_MATCHED_STR(matched=found), len(self.output_ids)
        return found is not None

    return check


def make_sampler() -> Any:
    import torch
    from sglang.srt.layers.sampler import Sampler

    class SeededSampler(Sampler):
        hot: Tensor | None = None

        def forward(self, logits_output: Any, *args: Any, **kwargs: Any) -> Any:
            if Drawing.unwritten:
                logits_output.next_token_logits[:, Drawing.unwritten] = -torch.inf
            first = Drawing.sampling.first_temperature
            self.hot = None if first is None else (logits_output.next_token_logits.float() / first).softmax(-1)
            return super().forward(logits_output, *args, **kwargs)

        def _sample_from_probs(self, probs: Tensor, sampling_info: Any, positions: Tensor, _: bool) -> Any:
            """probs [B, V] at the temperature -> token ids [B]. SGLang reports the logarithms of `probs`."""
            tokens, kept = drawn(probs, self.hot, sampling_info.sampling_seed, positions)
            return tokens, captured(kept, sampling_info.sampling_mask_batch_indices)

    return SeededSampler()


def captured(kept: Tensor, rows: Tensor | None) -> Any:
    """kept [B, V]: weights, 0 where a filter was, of which SGLang makes the sampling masks of those rows that asked."""
    from sglang.srt.layers.sampler import _SamplingMaskCapture

    if rows is None:
        return None
    return _SamplingMaskCapture(kept.index_select(0, rows), token_ids=None, selected_weight=None, batch_rows=rows)


def drawn(probs: Tensor, hot: Tensor | None, noise: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids [B], and the weights [B, V] that they were drawn by.

    probs [B, V]; hot [B, V]: those of first tokens; noise [B, 1 + tokens]: the position of the prompt's last token,
    then a uniform number for each token to come; positions [B]: of the token that the next one follows.

    SGLang draws also after a part of a prompt that it reads in parts, and may do so after the last token, while it does
    not know yet that this was the last; it throws both away."""
    token = (positions.long() - noise[:, 0].long()).clamp(0, noise.shape[1] - 2)
    uniform = noise.gather(1, 1 + token[:, None])[:, 0]
    if hot is not None:
        probs = probs.where(token[:, None] > 0, hot)
    kept = keep(probs, probs.sum(-1), Drawing.sampling)
    return inverse_cdf(kept, uniform).int(), kept


def write_fingerprints(self: Any, folder: str) -> None:
    """A method of SGLang's Scheduler: {names, joined by a space: (fingerprint, elements)} of its shards, as JSON."""
    shards = _shards(self.tp_worker.model_runner.model)
    found = {" ".join(names): (fingerprint(shard), shard.numel()) for names, shard in shards}
    Path(folder, str(self.tp_group.rank_in_group)).write_text(json.dumps(found))


def _shards(model: Any) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Each parameter that this process holds, by the names that it is made of. q, k and v apart, since where there are
    more processes than heads of k several hold the same ones; of a vocabulary the tokens alone, without the padding."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names, module = made_of(name, hasattr(model, "visual")), model.get_submodule(name.rpartition(".")[0])
        if len(names) == QKV:
            sizes = [module.q_proj_shard_size, module.kv_proj_shard_size, module.kv_proj_shard_size]
            yield from zip(((each,) for each in names), parameter.split(sizes), strict=True)
        elif hasattr(module, "shard_indices"):
            yield names, parameter[: module.shard_indices.num_org_elements]
        else:
            yield names, parameter
