"""What the engine of a run is told, from its start to its end, and again when the run goes on."""

from __future__ import annotations

import signal
import time

import pytest
import torch
from runs import BASE, all_rows, rows, train, weights
from safetensors.torch import load_file

from lightrft.loop.stop import StopRequest
from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines.base import EngineFailed
from lightrft.rollouts.engines.local import LocalEngine

FLAGS = "--fsdp --save_path run --eval_steps 2 --save_interval 0 --quiet"
HELD_OUT, PROMPTS = 23, 4


class Recording(LocalEngine):
    """The real engine, which writes down what it is told; `sent` is what it was given as weights of its own."""

    told: list = []
    sent: dict = {}

    def generate(self, requests, sampling, **limits):
        self.told.append((len(requests), self.version))
        return super().generate(requests, sampling, **limits)

    def update_weights(self, params, version):
        super().update_weights(params, version)
        self.told.append(f"version {version}")
        Recording.sent = {name: value.detach().clone() for name, value in params}

    def sleep(self, *, keep_weights):
        self.told.append("rest" if keep_weights else "sleep")

    def wake(self, what):
        self.told.append(f"wake {what}")

    def close(self):
        self.told.append("close")


class Apart(Recording):
    """Is sent weights, which it keeps, while it samples from the trainer's, which are as new."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.shares_weights = False

    def fingerprints(self):
        return {(name,): fingerprint(value) for name, value in self.sent.items()}


@pytest.fixture(params=(Recording, Apart))
def engine(monkeypatch, request):
    monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", request.param)
    Recording.told.clear()
    return request.param


class SlowToStart(LocalEngine):
    seconds = 1.5

    def wake(self, what):
        time.sleep(self.seconds)
        self.seconds = 0.0


def test_the_start_of_the_engine_is_no_steps_time(here, monkeypatch):
    """Neither in its metrics nor in the rate and the time left that the first line tells."""
    monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", SlowToStart)
    ended = train("--fsdp --save_path run --max_steps 9 --save_interval 0", BASE.replace("--eval_data eval.jsonl", ""))
    assert ended.code == 0, ended.err
    assert all_rows(here / "run")[0]["perf/step_s"] < 1.0
    [line] = [line for line in ended.out.splitlines() if line.startswith("step 1/9 ")]
    assert float(line.split(" s/step")[0].split()[-1]) < 1.0 and line.endswith(("0:00 left", "0:01 left", "0:02 left"))


def test_a_signal_that_comes_before_it_starts_no_engine(here, monkeypatch):
    listen = StopRequest.listen
    monkeypatch.setattr(StopRequest, "listen", lambda stop: (listen(stop), signal.raise_signal(signal.SIGTERM)))
    monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", Recording)
    Recording.told.clear()
    ended = train(f"{FLAGS} --max_steps 3")
    assert "stopped by SIGTERM after step 0; go on with --load_checkpoint" in ended.out and Recording.told == ["close"]


def woken(version):
    return ["wake weights", f"version {version}", "wake kv_cache"]


def test_one_engine_serves_a_run_and_memory_changes_hands_in_order(here, engine):
    """Rollouts are of the policy of their step, evaluations of the newest one; what sleeps is not asked."""
    assert train(f"{FLAGS} --max_steps 3 --save_steps 2").code == 0
    probed = [(1, 0)] if engine is Apart else []  # the first weights that it gets are tried out at once
    evaluated, turn = (HELD_OUT, 0), [(PROMPTS, 0), "sleep"]
    first = [*woken(0), *probed, evaluated, *turn, *woken(1), (PROMPTS, 1), "sleep", *woken(2), (HELD_OUT, 2)]
    saved = ["rest", "wake weights", "wake kv_cache"]  # a checkpoint: the weights are still the newest
    last = [(PROMPTS, 2), "sleep", *woken(3)]
    assert engine.told == [*first, *saved, *last, (HELD_OUT, 3), "rest", "close"]
    final = load_file(here / "run/model.safetensors")
    tied = {"lm_head.weight": "model.embed_tokens.weight"}  # sent under both names, kept under one
    assert engine.sent.keys() == ({*final, *tied} if engine is Apart else set())
    assert all(torch.equal(value, final[tied.get(name, name)]) for name, value in engine.sent.items())

    engine.told.clear()
    assert train(f"{FLAGS} --max_steps 4 --load_checkpoint").code == 0  # from the checkpoint of step 2
    probed = [(1, 2)] if engine is Apart else []
    resumed = [*woken(2), *probed, *last, (PROMPTS, 3), "sleep", *woken(4), (HELD_OUT, 4)]
    assert engine.told == [*resumed, "rest", "close"]


class Dead(LocalEngine):
    """Its process is gone from the third step on, and what it is asked then it cannot do."""

    def generate(self, requests, sampling, **limits):
        self._ask()
        return super().generate(requests, sampling, **limits)

    def sleep(self, *, keep_weights):
        self._ask()

    def _ask(self):
        if self.version == 2:
            raise EngineFailed("its process was ended by signal 9")


def test_an_engine_that_stays_dead_ends_the_run_with_a_checkpoint(here, monkeypatch):
    monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", Dead)
    ended = train("--fsdp --save_path run --save_interval 0 --quiet --max_steps 4")
    assert ended.code == 1
    assert ended.problems == ["error: step 3: its process was ended by signal 9"]
    assert "step 3: its process was ended by signal 9; trying once more on a fresh engine" in ended.err
    assert "the state after step 2 is kept: run/checkpoints/step_000002" in ended.out


@pytest.mark.parametrize("more", ("", "--dynamic_sampling --reward_fn shaped.py:length"))
def test_prompts_that_were_given_up_come_again_in_a_run_that_goes_on(here, more):
    """A checkpoint holds them in its stream of prompts: the rest of the run is the same to the bit."""
    flags = f"--fsdp --oversample_ratio 1.5 --max_steps 4 --save_steps 2 --quiet {more}"
    assert train(f"{flags} --save_path whole").code == 0
    assert all(row["rollout/given_up"] > 0 for row in rows(here / "whole"))
    again = train(f"{flags} --save_path branch --load_checkpoint --ckpt_path whole/checkpoints/step_000002")
    assert again.code == 0 and "resumed from step 2" in again.out
    assert rows(here / "branch") == rows(here / "whole")[2:]
    assert weights(here / "branch") == weights(here / "whole")
