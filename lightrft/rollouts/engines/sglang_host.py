"""What runs in SGLang's own process (engines/hosted.py): its Engine, asked for what the adapter needs."""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import tempfile
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightrft.rollouts.engines.hosted import serve
from lightrft.rollouts.engines.sglang_scheduler import run_scheduler
from lightrft.rollouts.engines.traces import MARK_VARIABLE

Asked = tuple[Sequence[int], dict[str, Any], Sequence[Any]]  # token ids, SGLang's sampling parameters, images
Answer = dict[str, Any]
IDLE_S = 60.0  # an engine whose requests are answered is idle at once


def with_mark(original: Callable[..., Any]) -> Callable[..., Any]:
    """In SGLang's name of its instance, after which it names a file of shared memory (engines/traces.py)."""

    def init_new(*args: Any, **kwargs: Any) -> Any:
        made = original(*args, **kwargs)
        made.instance_id = f"{os.environ[MARK_VARIABLE]}{made.instance_id}"
        return made

    return init_new


def noted(original: Callable[..., Any]) -> Callable[..., Any]:
    """What SGLang makes of a request with images is noted there."""

    async def process(*args: Any, request_obj: Any, **kwargs: Any) -> Any:
        request_obj.lightrft_made = await original(*args, request_obj=request_obj, **kwargs)
        return request_obj.lightrft_made

    return process


class Hosted:
    """settings: SGLang's own, by the names of its ServerArgs, and `processor`: the trainer's, of a model that sees."""

    def __init__(self, settings: dict[str, Any], beat: Callable[[], None]) -> None:
        from sglang.srt.entrypoints.engine import Engine
        from sglang.srt.managers import tokenizer_manager
        from sglang.srt.server_args import PortArgs

        PortArgs.init_new = staticmethod(with_mark(PortArgs.init_new))

        class OurEngine(Engine):
            run_scheduler_process_func = staticmethod(run_scheduler)

            @classmethod
            def _launch_scheduler_processes(cls, *args: Any, **kwargs: Any) -> Any:
                if settings["device"] == "cpu":  # they need not import again what took seconds here
                    multiprocessing.set_start_method("fork", force=True)
                return super()._launch_scheduler_processes(*args, **kwargs)

        processor = settings.pop("processor", None)
        if processor is not None:  # the one that SGLang makes has other limits for some models
            tokenizer_manager.get_processor_wrapper = lambda: processor
        self.beat, self.processes = beat, settings.get("tp_size", 1)
        self.engine = OurEngine(**settings)
        if processor is not None:
            reader = self.engine.tokenizer_manager.mm_processor
            reader.process_mm_data_async = noted(reader.process_mm_data_async)

    def generate(self, groups: Sequence[Sequence[Asked]], enough: int) -> list[list[Answer]]:
        """For each group an answer to each of its samples; as soon as `enough` groups have theirs the others are given
        up, and have none."""
        return self.engine.loop.run_until_complete(self._generate(groups, enough))

    async def _generate(self, groups: Sequence[Sequence[Asked]], enough: int) -> list[list[Answer]]:
        answered = [0] * len(groups)

        async def answer(group: int, asked: Asked) -> Answer:
            found = await self._one(*asked)
            answered[group] += 1
            if enough < len(groups) and sum(n == len(each) for n, each in zip(answered, groups, strict=True)) == enough:
                self.engine.tokenizer_manager.abort_request(abort_all=True)
            return found

        made = await asyncio.gather(
            *(asyncio.gather(*(answer(group, asked) for asked in each)) for group, each in enumerate(groups))
        )
        given_up = enough < len(groups)
        return [
            [] if given_up and any(answer["end"]["type"] == "abort" for answer in group) else group for group in made
        ]

    async def _one(self, prompt: Sequence[int], sampling: dict[str, Any], images: Sequence[Any]) -> Answer:
        """One sample: its token ids, their log-probabilities, and how it ended, in SGLang's words. It is told of now
        and then, each time all that there is of it so far."""
        from sglang.srt.managers.io_struct import GenerateReqInput

        masks = sampling["custom_params"]["masks"]
        asked = GenerateReqInput(  # Engine.async_generate cannot be asked for masks
            input_ids=list(prompt),
            image_data=list(images) or None,
            sampling_params=sampling,
            return_logprob=True,
            stream=True,
            return_sampling_mask=masks,
        )
        parts = self.engine.tokenizer_manager.generate_request(asked, None)
        made: dict[str, Any] = {}
        async for made in parts:  # noqa: B007
            self.beat()
        about = made["meta_info"]
        logprobs = [logprob for logprob, *_ in about.get("output_token_logprobs") or ()]
        answer = {"ids": made["output_ids"], "logprobs": logprobs, "end": about["finish_reason"]}
        if images:
            answer["prompt_ids"] = list(asked.lightrft_made.input_ids)
        return {**answer, **_masks(about)} if masks else answer

    def seen(self, prompt: Sequence[int], image: Any) -> dict[str, Any]:
        """What SGLang makes of a prompt with that image: token ids, pixels, and their grid."""
        from sglang.srt.managers.io_struct import GenerateReqInput

        asked = GenerateReqInput(input_ids=list(prompt), image_data=[image])
        reader = self.engine.tokenizer_manager.mm_processor
        made = self.engine.loop.run_until_complete(
            reader.process_mm_data_async(image_data=[image], input_text=list(prompt), request_obj=asked)
        )
        item = made.mm_items[0]
        found = {"pixel_values": item.feature, "image_grid_thw": item.image_grid_thw}
        return {"input_ids": list(made.input_ids), **{name: value.tolist() for name, value in found.items()}}

    def begin_weights(self) -> None:
        if hasattr(self.engine, "begin_weight_update"):
            _checked(self.engine.begin_weight_update())

    def load_weights(self, payloads: list[bytes]) -> None:
        """payloads: the same named tensors, pickled once for each of the engine's processes."""
        from sglang.srt.managers.io_struct import UpdateWeightsFromTensorReqInput

        asked = UpdateWeightsFromTensorReqInput(serialized_named_tensors=payloads, flush_cache=False)
        _checked(self.engine.loop.run_until_complete(self.engine.tokenizer_manager.update_weights_from_tensor(asked)))

    def end_weights(self) -> None:
        if hasattr(self.engine, "end_weight_update"):
            _checked(self.engine.end_weight_update())
        self._flush()

    def fingerprints(self) -> list[dict[str, tuple[int, int]]]:
        """Of each of its processes what `sglang_scheduler.write_fingerprints` wrote."""
        with tempfile.TemporaryDirectory() as folder:
            self.engine.collective_rpc("write_fingerprints", folder=folder)
            return [json.loads(Path(folder, str(rank)).read_text()) for rank in range(self.processes)]

    def release(self, tags: list[str]) -> None:
        self._flush()
        self.engine.release_memory_occupation(tags)

    def resume(self, tags: list[str]) -> None:
        self.engine.resume_memory_occupation(tags)

    def _flush(self) -> None:
        """Forgets keys and values, as soon as the last batch is over: an answer comes before that."""
        flushed = self.engine.loop.run_until_complete(self.engine.tokenizer_manager.flush_cache(timeout_s=IDLE_S))
        if not flushed.success:
            raise RuntimeError(f"flush_cache: {getattr(flushed, 'message', '') or f'not idle within {IDLE_S:.0f} s'}")

    def close(self) -> None:
        self.engine.shutdown()


def _masks(about: dict[str, Any]) -> dict[str, Any]:
    """What each token was drawn from, and its log-probability among these."""
    sets = about.get("output_token_sampling_mask") or []
    ids = [token for each in sets for token in sorted(each)]
    found = {"sizes": array("i", map(len, sets)), "kept": array("i", ids)}
    return {**found, "kept_logprobs": about.get("output_token_sampling_logprobs") or []}


def _checked(answer: tuple[bool, str]) -> None:
    done, message = answer[:2]
    if not done:
        raise RuntimeError(message)


if __name__ == "__main__":
    serve(Hosted)
