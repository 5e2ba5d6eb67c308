"""What runs in SGLang's own process (engines/hosted.py): its Engine, asked for what the adapter needs."""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightrft.rollouts.engines.hosted import serve
from lightrft.rollouts.engines.sglang_scheduler import run_scheduler


class Hosted:
    """settings: SGLang's own, by the names of its ServerArgs."""

    def __init__(self, settings: dict[str, Any], beat: Callable[[], None]) -> None:
        from sglang.srt.entrypoints.engine import Engine

        class OurEngine(Engine):
            run_scheduler_process_func = staticmethod(run_scheduler)

        self.beat, self.processes = beat, settings.get("tp_size", 1)
        self.engine = OurEngine(**settings)

    def generate(self, prompts: Sequence[Sequence[int]], settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One sample for each prompt: its token ids, their log-probabilities, and how it ended, in SGLang's words."""

        async def one(prompt: Sequence[int], sampling: dict[str, Any]) -> dict[str, Any]:
            made = await self.engine.async_generate(
                input_ids=list(prompt), sampling_params=sampling, return_logprob=True
            )
            self.beat()
            about = made["meta_info"]
            logprobs = [logprob for logprob, *_ in about["output_token_logprobs"]]
            return {"ids": made["output_ids"], "logprobs": logprobs, "end": about["finish_reason"]}

        async def all_of_them() -> list[dict[str, Any]]:
            return await asyncio.gather(*map(one, prompts, settings))

        return self.engine.loop.run_until_complete(all_of_them())

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
        flushed = self.engine.flush_cache()
        if not flushed.success:
            raise RuntimeError(f"flush_cache: {getattr(flushed, 'message', '') or 'refused'}")

    def fingerprints(self) -> list[dict[str, tuple[int, int]]]:
        """Of each of its processes what `sglang_scheduler.write_fingerprints` wrote."""
        with tempfile.TemporaryDirectory() as folder:
            self.engine.collective_rpc("write_fingerprints", folder=folder)
            return [json.loads(Path(folder, str(rank)).read_text()) for rank in range(self.processes)]

    def release(self, tags: list[str]) -> None:
        self.engine.release_memory_occupation(tags)

    def resume(self, tags: list[str]) -> None:
        self.engine.resume_memory_occupation(tags)

    def close(self) -> None:
        self.engine.shutdown()


def _checked(answer: tuple[bool, str]) -> None:
    done, message = answer[:2]
    if not done:
        raise RuntimeError(message)


def print_settings() -> None:
    """The names of ServerArgs, as JSON on the last line."""
    import inspect

    from sglang.srt.server_args import ServerArgs

    print(json.dumps(list(inspect.signature(ServerArgs).parameters)))


if __name__ == "__main__":
    print_settings() if sys.argv[1:] == ["--settings"] else serve(Hosted)
