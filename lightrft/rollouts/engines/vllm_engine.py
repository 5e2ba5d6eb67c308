"""vLLM, in this process: one engine for each rank, or one that a group of ranks shares (engines/tp_group.py).

Its weights always come from the trainer: the model's folder tells the architecture alone. vLLM is started when it is
needed for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused, RunFailed, error_text, warn
from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.base import EngineFailed, Sampling, check_room
from lightrft.rollouts.engines.images import check_ids
from lightrft.rollouts.engines.presence import Presence, What
from lightrft.rollouts.engines.vllm_images import check_processor, prompt_of
from lightrft.rollouts.engines.vllm_names import as_loaded
from lightrft.rollouts.engines.vllm_process import end, start, undisturbed
from lightrft.rollouts.engines.vllm_transfer import UNTOLD, push
from lightrft.types import Generation, Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from lightrft.prompts.vision import Vision


class VLLMEngine:
    """chosen: fields of vLLM's EngineArgs. number: the engine's, alike on all ranks that share it. given: what of its
    settings the user has to hear of where it does not start. vision: of a model that sees.

    Ranks that share an engine make the same calls with the same requests.
    """

    shares_weights = False

    def __init__(
        self,
        chosen: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Iterable[int],
        dtype: torch.dtype,
        number: int = 0,
        given: str = "",
        vision: Vision | None = None,
    ) -> None:
        self.chosen, self.tokenizer, self.end_ids, self.dtype = chosen, tokenizer, sorted(end_ids), dtype
        self.number, self.given, self.version, self.steps = number, given, 0, 0
        self.sizes: dict[str, int] = {}  # elements of each tensor that was pushed
        self.gives_back = bool(chosen.get("enable_sleep_mode"))  # else it only keeps account of who would hold it
        self.presence = Presence()
        self.vision, self._llm = vision, None

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, at_once: int, enough: int | None = None
    ) -> list[list[Generation]]:
        """vLLM itself decides how many are decoded together, by the room that their keys and values need."""
        self.presence.check_ready()
        check_room("vLLM", self.chosen["max_model_len"], requests, sampling)
        with self._failing("generated"), undisturbed():
            groups = self._decode(requests, sampling, len(requests) if enough is None else enough)
        return [
            [row.generation(request, str(self.version)) for row in rows] if _are_done(rows) or enough is None else []
            for request, rows in zip(requests, groups, strict=True)
        ]

    def _decode(self, requests: Sequence[Request], sampling: Sampling, enough: int) -> list[list[_Row]]:
        """The rows of each request; those that are on their way when `enough` requests are done have no end."""
        groups = [[_Row() for _ in request.seeds] for request in requests]
        engine, rows = self._ready().llm_engine, [row for group in groups for row in group]
        asked = [(request, seed) for request in requests for seed in request.seeds]
        for number, (request, seed) in enumerate(asked):
            engine.add_request(str(number), prompt_of(request), self._params(sampling, seed))
        while engine.has_unfinished_requests():
            grown = {int(output.request_id): output for output in engine.step()}
            for number, output in grown.items():
                rows[number].grow(output)
            stopped = [number for number in grown if self._meets_stop(rows[number], sampling)]
            engine.abort_request([str(number) for number in stopped])
            self.steps += 1
            PULSE.beat()
            if enough < len(groups) and sum(map(_are_done, groups)) >= enough:
                engine.abort_request([str(number) for number, row in enumerate(rows) if not row.reason])
                break
        return groups

    def _meets_stop(self, row: _Row, sampling: Sampling) -> bool:
        """Whether its newest token ends one of the texts, as the local engine looks for them; then it has ended."""
        if not sampling.stop or row.reason:
            return False
        tail = self.tokenizer.decode(row.tokens[-sampling.stop_window :])
        if any(text in tail for text in sampling.stop):
            row.reason = "stop"
        return bool(row.reason)

    def _params(self, sampling: Sampling, seed: int) -> Any:
        from vllm import SamplingParams  # pyright: ignore
        from vllm.sampling_params import RequestOutputKind  # pyright: ignore

        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=seed % (1 << 63),  # of 64 bits; it takes signed ones
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=[] if sampling.ignore_eos else self.end_ids,
            ignore_eos=True,  # those of the model's folder: ours are in `stop_token_ids`
            logprobs=0,  # of the sampled token
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if sampling.stop else RequestOutputKind.FINAL_ONLY,
        )

    def update_weights(self, params: Iterable[tuple[str, Tensor]], version: int) -> None:
        llm = self._ready()
        with self._failing("took new weights"):
            push(llm, self._noted(params, llm.collective_rpc("lightrft_wrappers")[0]), version)
            if not llm.reset_prefix_cache():
                raise RuntimeError("its prefix cache could not be emptied")
            llm.llm_engine.reset_mm_cache()
            llm.llm_engine.reset_encoder_cache()  # images as the older weights saw them
        self.presence.pushed()
        self.version = version

    def _noted(self, params: Iterable[tuple[str, Tensor]], wrappers: list[str]) -> Iterator[tuple[str, Tensor]]:
        for name, value in params:
            self.sizes[name] = value.numel()
            yield as_loaded(name, wrappers), value

    def fingerprints(self) -> Mapping[tuple[str, ...], int]:
        with self._failing("told its fingerprints"):
            return self._ready().collective_rpc("lightrft_fingerprints", args=(self.sizes,))[0]

    def sleep(self, *, keep_weights: bool) -> None:
        if self._llm is not None and self.presence.sleep(keep_weights=keep_weights) and self.gives_back:
            with self._failing("went to sleep"):
                self._llm.sleep(level=1 if keep_weights else 2)

    def wake(self, what: What) -> None:
        llm = self._ready()
        if self.presence.wake(what) and self.gives_back:
            with self._failing("woke up"):
                llm.wake_up(tags=[what])

    def restart(self) -> None:
        self.close()
        self.presence = Presence()

    def stats(self) -> dict[str, float]:
        found, self.steps = {"engine_steps": float(self.steps)}, 0
        return found

    def close(self) -> None:
        """What its end fails of is told and no more: the run may be ending for another reason, which is to be seen."""
        llm, self._llm = self._llm, None
        if llm is not None:
            try:
                end(llm, self.number)
            except Exception as error:
                warn(f"vLLM could not be ended as it should: {error_text(error, most=300)}")

    def _ready(self) -> Any:
        if self._llm is None:
            with PULSE.during("engine"):
                dtype = str(self.dtype).removeprefix("torch.")
                processor = None if self.vision is None else self.vision.processor
                self._llm = start({**self.chosen, "dtype": dtype}, self.number, self.given, processor)
            if self.vision is not None:
                check_processor(self._llm, self.vision, "video" not in self.chosen["limit_mm_per_prompt"])
        return self._llm

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (Refused, RunFailed):
            raise
        except Exception as error:
            raise EngineFailed(f"vLLM failed while it {doing}: {error_text(error, most=300)}") from error


@dataclass
class _Row:
    """One response on its way."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: str = ""
    prompt_ids: tuple[int, ...] = ()  # as vLLM read them
    versions: set[str] = field(default_factory=set)  # of the weights that vLLM says its tokens are from

    def grow(self, told: Any) -> None:
        """By what is new of it, which is all of it where only whole ones are told."""
        if self.reason:
            return  # it was taken for one more token when it had ended
        output, self.prompt_ids = told.outputs[0], tuple(told.prompt_token_ids)
        self.tokens += output.token_ids
        self.logprobs += [told[token].logprob for token, told in zip(output.token_ids, output.logprobs, strict=True)]
        self.reason = output.finish_reason or ""
        self.versions |= {span.version for span in getattr(output, "weight_versions", None) or ()}

    def generation(self, request: Request, version: str) -> Generation:
        if self.reason not in ("stop", "length"):
            raise EngineFailed(f"vLLM gave a response up: {self.reason or 'it has no end'}")
        if others := self.versions - {version, UNTOLD}:
            raise EngineFailed(f"vLLM sampled from weights of version {min(others)}, and {version} was pushed last")
        check_ids("vLLM", request, self.prompt_ids)
        return Generation(request.prompt_ids, tuple(self.tokens), tuple(self.logprobs), self.reason)


def _are_done(rows: Sequence[_Row]) -> bool:
    return all(row.reason for row in rows)
