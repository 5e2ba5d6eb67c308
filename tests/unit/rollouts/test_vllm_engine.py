"""What of the vLLM adapter needs no vLLM: tests/engines runs the rest on the real engine."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from lightrft.rollouts.engines.base import EngineFailed
from lightrft.rollouts.engines.vllm_engine import VLLMEngine, _Row
from lightrft.types import Request

LEFT = Path("/dev/shm/tp:987654321_cpushm_of_a_test")


@pytest.fixture
def ended(monkeypatch) -> list[str]:
    """What was ended of a vLLM whose every end fails, as after a CUDA error."""
    done: list[str] = []

    def fails(what: str) -> Any:
        def end() -> None:
            done.append(what)
            raise RuntimeError(f"CUDA error: an illegal memory access\nin {what}")

        return end

    state = SimpleNamespace(cleanup_dist_env_and_memory=fails("groups"))
    distributed = ModuleType("vllm.distributed")
    setattr(distributed, "parallel_state", state)  # noqa: B010
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.distributed", distributed)
    llm = SimpleNamespace(llm_engine=SimpleNamespace(engine_core=SimpleNamespace(shutdown=fails("workers"))))
    monkeypatch.setattr("lightrft.rollouts.engines.vllm_engine.start", lambda *_: llm)
    return done


@pytest.mark.parametrize("way", ["close", "restart"])
def test_an_engine_that_cannot_be_ended_warns_and_no_more(ended, way, capsys):
    """What a run fails of is told, and not what its ends fail of after it."""
    engine = VLLMEngine({"max_model_len": 8}, None, [1], torch.float32, 987654321)  # type: ignore[arg-type]
    engine._ready()
    LEFT.touch()
    try:
        getattr(engine, way)()
        assert ended == ["workers", "groups"] and not LEFT.exists()
    finally:
        LEFT.unlink(missing_ok=True)
    told = capsys.readouterr().err
    assert told.startswith("warning: vLLM could not be ended as it should: RuntimeError: CUDA error")
    assert told.count("\n") == 1
    engine.close()
    assert len(ended) == 2 and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("told", "others"), [(None, False), (("3",), False), (("default",), False), (("2", "3"), True)]
)
def test_a_response_from_other_weights_than_those_pushed_last_is_a_failure(told, others):
    """vLLM tells the versions of a whole response, where it has been told any."""
    spans = None if told is None else [SimpleNamespace(version=each) for each in told]
    row, request = _Row(), Request((4, 5), (1,))
    logprobs = [{7: SimpleNamespace(logprob=-1.0)}]
    output = SimpleNamespace(token_ids=[7], logprobs=logprobs, finish_reason="stop", weight_versions=spans)
    row.grow(SimpleNamespace(prompt_token_ids=[4, 5], outputs=[output]))
    if not others:
        assert row.generation(request, "3").response_ids == (7,)
        return
    with pytest.raises(EngineFailed, match="from weights of version 2, and 3 was pushed last"):
        row.generation(request, "3")
