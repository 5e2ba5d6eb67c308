"""SGLang as an inference engine. It lives in a process of its own, beside those that SGLang starts for itself.

    the trainer: this file, hosted.Host
      its child: sglang_host.Hosted, with SGLang's Engine
        one for each GPU of the engine: sglang_scheduler, with the model and the sampler

SGLang's Engine replaces signal handlers and the event loop of the process that makes it, `shutdown` kills all children
of that process, and a worker that fails kills the process itself: so it is not the trainer's. Its weights always come
from the trainer: the model's folder tells the architecture alone. It is started when it is needed for the first time.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import torch
import torch.multiprocessing  # it teaches the pickler what a tensor is
from torch import Tensor

from lightrft.errors import RunFailed
from lightrft.models.fingerprint import MODULUS
from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.base import EngineFailed, Sampling, check_room
from lightrft.rollouts.engines.hosted import Host
from lightrft.rollouts.engines.images import check_alike, check_ids, difference, noise
from lightrft.rollouts.engines.presence import Presence, What
from lightrft.rollouts.engines.sglang_names import as_loaded
from lightrft.types import Generation, Request, SamplingMask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.prompts.vision import Vision

Asked = tuple[Sequence[int], dict[str, Any], Sequence[Any]]  # as sglang_host.py takes them
BUCKET_BYTES, BUCKET_TENSORS = 1 << 28, 64  # sent at once; in shared memory a tensor takes a file descriptor


class SGLangEngine:
    """program: the module that is its process. chosen: fields of SGLang's ServerArgs. variables: of its environment.
    max_len: of prompt and response. sleeps: whether memory is given back; else it is only kept account of. given: what
    of its settings the user has to hear of where it does not start. vision: of a model that sees."""

    shares_weights = False

    def __init__(
        self,
        program: str,
        chosen: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerBase,
        end_ids: Iterable[int],
        dtype: torch.dtype,
        *,
        variables: Mapping[str, str],
        max_len: int,
        sleeps: bool,
        given: str = "",
        vision: Vision | None = None,
    ) -> None:
        self.chosen, self.tokenizer, self.end_ids, self.dtype = chosen, tokenizer, sorted(end_ids), dtype
        self.program, self.variables, self.max_len, self.sleeps = program, variables, max_len, sleeps
        self.given, self.vision = given, vision
        self.version, self.made = 0, 0
        self.presence, self.released = Presence(), set[str]()
        self.unwritten = sorted(vision.placeholders) if vision else []  # no token of a response
        self.sizes: dict[str, int] = {}  # elements of each tensor that was pushed
        self._host: Host | None = None

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, at_once: int, enough: int | None = None
    ) -> list[list[Generation]]:
        """SGLang itself decides how many are decoded together, by the room that their keys and values need."""
        self.presence.check_ready()
        check_room("SGLang", self.max_len, requests, sampling)
        asked = [[self._asked(request, sampling, seed) for seed in request.seeds] for request in requests]
        answers = self._ask("generate", asked, len(asked) if enough is None else enough) if asked else []
        self.made += sum(map(len, answers))
        return [
            [self._generation(request, answer, sampling) for answer in group]
            for request, group in zip(requests, answers, strict=True)
        ]

    def _asked(self, request: Request, sampling: Sampling, seed: int) -> Asked:
        params = self._params(sampling, seed)
        return (request.bare_ids, params, request.media.images) if request.media else (request.prompt_ids, params, ())

    def _params(self, sampling: Sampling, seed: int) -> dict[str, Any]:
        """Of one request, in SGLang's words; its seeds are signed. `custom_params` are for sglang_scheduler.py."""
        ours = {"new_tokens": sampling.max_new_tokens, "first_temperature": sampling.first_temperature}
        ours |= {"masks": sampling.masks, "unwritten": self.unwritten}
        stop = {"stop": list(sampling.stop), "stop_window": sampling.stop_window} if sampling.stop else {}
        return {
            "max_new_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k if sampling.top_k > 0 else self._no_top_k(sampling),
            "min_p": sampling.min_p,
            "stop_token_ids": [] if sampling.ignore_eos else self.end_ids,
            "sampling_seed": (seed + MODULUS // 2) % MODULUS - MODULUS // 2,
            "custom_params": {**ours, **stop},
        }

    def _no_top_k(self, sampling: Sampling) -> int:
        """SGLang gives no masks without a top_k: then it is the whole vocabulary."""
        return self.chosen["sampling_mask_max_tokens"] if sampling.masks else -1

    def _generation(self, request: Request, answer: Mapping[str, Any], sampling: Sampling) -> Generation:
        check_ids("SGLang", request, answer.get("prompt_ids", request.prompt_ids))
        ids, how = tuple(answer["ids"]), answer["end"]
        if how["type"] not in ("stop", "length"):
            raise EngineFailed(f"--engine_type sglang: a request was given up: {how.get('message')}")
        if how["type"] == "length" and len(ids) < sampling.max_new_tokens:
            room = f"{len(request.prompt_ids)} tokens and {sampling.max_new_tokens} new ones"
            raise RunFailed(f"SGLang has no room for {room}; raise --engine_kwargs max_total_tokens=")
        logprobs = tuple(math.nan if each is None else float(each) for each in answer["logprobs"])
        if not sampling.returns_mask:
            return Generation(request.prompt_ids, ids, logprobs, how["type"])
        logprobs, mask = _masked(answer, logprobs, sampling)
        return Generation(request.prompt_ids, ids, logprobs, how["type"], mask)

    def update_weights(self, params: Iterable[tuple[str, Tensor]], version: int) -> None:
        self._ask("begin_weights")
        for bucket in _buckets(params):
            self.sizes.update((name, value.numel()) for name, value in bucket)
            bucket = [(as_loaded(name), value) for name, value in bucket]
            self._ask("load_weights", [_pickled(bucket) for _ in range(self.chosen["tp_size"])])
        self._ask("end_weights")
        self.presence.pushed()
        self.version = version

    def fingerprints(self) -> Mapping[tuple[str, ...], int]:
        shards = self._ask("fingerprints")
        held = {tuple(names.split()): [each[names] for each in shards] for names in shards[0]}
        return {names: self._whole(names, parts) for names, parts in held.items()}

    def _whole(self, names: Sequence[str], shards: Sequence[tuple[int, int]]) -> int:
        """shards: fingerprint and elements of what each process holds of the tensor. Several may hold the same, which
        shows as soon as it was pushed."""
        elements = sum(self.sizes.get(name, 0) for name in names)
        alike = max(1, sum(size for _, size in shards) // elements) if elements else 1
        different = next((n for n in range(len(shards)) if shards[n] != shards[n - n % alike]), None)
        if different is not None:  # of processes that should hold the same: what is wrong has to show
            return shards[different][0]
        return sum(number for number, _ in shards[::alike]) % MODULUS

    def sleep(self, *, keep_weights: bool) -> None:
        """With `keep_weights` they stay where they are, and the room for keys and values alone is given back."""
        if self._host is not None and self.presence.sleep(keep_weights=keep_weights) and self.sleeps:
            self.released = {"kv_cache"} if keep_weights else {"kv_cache", "weights"}
            self._ask("release", sorted(self.released))

    def wake(self, what: What) -> None:
        self.presence.wake(what)
        if what in self.released:  # one that was not given back ends SGLang when it is asked for
            self._ask("resume", [what])
            self.released.discard(what)

    def restart(self) -> None:
        self.close()
        self.presence = Presence()
        self.released.clear()

    def stats(self) -> dict[str, float]:
        found, self.made = {"engine_requests": float(self.made)}, 0
        return found

    def close(self) -> None:
        host, self._host = self._host, None
        if host is not None:
            host.close()

    def _ask(self, what: str, *parts: Any) -> Any:
        if self._host is None:
            with PULSE.during("engine"):
                self._host = Host("sglang", self.program, self._settings(), self.variables, self.given)
            if self.vision is not None:
                self._check_processor(self.vision)
        return self._host.ask(what, *parts)

    def _settings(self) -> dict[str, Any]:
        return {**self.chosen, **({} if self.vision is None else {"processor": self.vision.processor})}

    def _check_processor(self, vision: Vision) -> None:
        request = vision.of_image(noise())
        assert request.mm_inputs is not None, "it has an image"
        made = {"input_ids": request.prompt_ids, **request.mm_inputs.features}
        check_alike("SGLang", difference(made, self._ask("seen", request.bare_ids, noise())))


def _masked(
    answer: Mapping[str, Any], logprobs: tuple[float, ...], sampling: Sampling
) -> tuple[tuple[float, ...], SamplingMask]:
    """Log-probabilities, of what each token was drawn from, and this; a hot first token has the one that it had."""
    if not sampling.masks:
        return logprobs, SamplingMask(array("i", [0] * len(logprobs)), array("i"))
    inside, sizes, ids = tuple(answer["kept_logprobs"]), answer["sizes"], answer["kept"]
    if sampling.first_temperature is not None and inside:
        inside, ids, sizes = (*logprobs[:1], *inside[1:]), ids[sizes[0] :], array("i", [0, *sizes[1:]])
    return inside, SamplingMask(sizes, ids)


def _buckets(params: Iterable[tuple[str, Tensor]]) -> Iterator[list[tuple[str, Tensor]]]:
    """Copies, some at a time, each bucket's in one piece of memory that another process may share."""
    waiting: list[tuple[str, Tensor]] = []
    for name, value in params:
        waiting.append((name, value.detach()))
        if len(waiting) == BUCKET_TENSORS or sum(each.nbytes for _, each in waiting) >= BUCKET_BYTES:
            yield _copied(waiting)
            waiting = []
    if waiting:
        yield _copied(waiting)


def _copied(tensors: Sequence[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """tensors: of one dtype and device."""
    memory = torch.cat([value.reshape(-1) for _, value in tensors])
    parts = memory.split([value.numel() for _, value in tensors])
    return [(name, part.view(value.shape)) for (name, value), part in zip(tensors, parts, strict=True)]


def _pickled(named: Sequence[tuple[str, Tensor]]) -> bytes:
    """Handles of the tensors, not their contents. Each can be opened once: SGLang's processes get one each."""
    return bytes(ForkingPickler.dumps(list(named)))
