"""The recipes of examples/launch, as they stand: two "machines" that are two launchers here, and Slurm with programs
that stand for its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from on_ranks import free_ports
from pages import with_programs
from runs import ROOT, read_json, wait_for_steps, words

LAUNCH = ROOT / "examples/launch"
FLAGS = "--fsdp --save_path out --quiet"
DEADLINE_S = 240
SLURM = {
    "scontrol": """
case "$1 $2" in
    "show hostnames") echo 127.0.0.1 ;;
    "show job") cat state 2>/dev/null || echo "JobState=RUNNING PreemptTime=None" ;;
    *) echo "$@" >>requeued ;;
esac""",
    "srun": """
for node in 0 1; do SLURM_NODEID=$node "$@" & echo $! >>running; done
wait""",
    # as Slurm does it: every process of the job's steps gets the signal, torchrun and its ranks alike
    "scancel": """
for launcher in $(cat running); do pkill -TERM -P "$launcher"; kill -TERM "$launcher"; done
rm running""",
}


def launched(folder: Path, recipe: str, flags: str, **variables: object) -> subprocess.Popen:
    given = {"PROCESSES": "1", "HF_HUB_OFFLINE": "1", **{name: str(value) for name, value in variables.items()}}
    return subprocess.Popen(
        ["bash", str(LAUNCH / recipe), *words(f"{FLAGS} {flags}")],
        cwd=folder,
        env={**with_programs(folder), **given},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_two_machines(folder: Path, rendezvous: str) -> None:
    (port,) = free_ports(1)
    named = {"NODES": 2, "MASTER": "127.0.0.1", "PORT": port, "RENDEZVOUS": rendezvous}
    numbered = [{"NODE": node} if rendezvous == "static" else {} for node in range(2)]
    machines = [launched(folder, "nodes.sh", "--max_steps 2 --no-quiet", **named, **number) for number in numbered]
    ended = [machine.communicate(timeout=DEADLINE_S) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], ended
    assert sorted(out.count("finished 2 steps") for out, _ in ended) == [0, 1], "rank 0 is on one of them"
    assert read_json(folder / "out/summary.json")["steps"] == 2


def test_two_machines(here: Path):
    check_two_machines(here, "static")


@pytest.mark.slow
def test_two_machines_that_are_numbered_as_they_come(here: Path):
    check_two_machines(here, "c10d")


def stand_for_slurm(folder: Path, programs: dict[str, str]) -> None:
    assert with_programs(folder)["PATH"].startswith(str(folder / ".programs"))
    for name, body in programs.items():
        (folder / ".programs" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / ".programs" / name).chmod(0o755)


@pytest.mark.parametrize(
    ("sent", "state", "comes_back"),
    [
        (["USR1"], "JobState=RUNNING PreemptTime=None", True),
        (["TERM"], "JobState=CANCELLED PreemptTime=None", False),
        (["USR1", "TERM"], "JobState=CANCELLED PreemptTime=None", False),
        (["TERM"], "JobState=RUNNING PreemptTime=2026-01-02T03:04:05", True),
        ([], "JobState=RUNNING PreemptTime=2026-01-02T03:04:05", True),  # only the processes of srun were told
        ([], "JobState=RUNNING PreemptTime=None", False),
    ],
)
def test_which_jobs_of_slurm_come_back(here: Path, sent: list[str], state: str, comes_back: bool):
    """The run is one that goes on until each signal was passed on to it, and then ends with 1, as torchrun does."""
    count = len(sent)
    run = f"touch began; until [ $(cat told 2>/dev/null | wc -l) -ge {count} ]; do sleep 0.02; done; exit 1"
    stand_for_slurm(here, {**SLURM, "srun": run, "scancel": 'echo "$@" >>told'})
    (here / "state").write_text(state)
    job = launched(here, "slurm.sbatch", "", SLURM_JOB_NODELIST="a", SLURM_NNODES=1, SLURM_JOB_ID=7, LIGHTRFT_ROOT=ROOT)
    for number, name in enumerate(sent):
        while not (here / "began").exists() or len(lines_of(here / "told")) < number:
            time.sleep(0.02)
        job.send_signal(signal.Signals[f"SIG{name}"])
    out, err = job.communicate(timeout=DEADLINE_S)
    assert lines_of(here / "told") == ["--signal=TERM 7"] * count, (out, err)
    assert lines_of(here / "requeued") == (["requeue 7"] if comes_back else []), (out, err)
    assert job.returncode == (0 if comes_back else 1)


def lines_of(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.slow
def test_a_job_of_slurm_saves_before_its_time_is_up_and_goes_on(here: Path):
    job = {"SLURM_JOB_NODELIST": "a,b", "SLURM_NNODES": 2, "SLURM_JOB_ID": free_ports(1)[0], "LIGHTRFT_ROOT": ROOT}
    stand_for_slurm(here, SLURM)
    flags = "--max_steps 400 --save_interval 0 --reward_fn shaped.py:slow"
    first = launched(here, "slurm.sbatch", flags, **job)
    wait_for_steps(first, here / "out", 2)
    os.kill(first.pid, signal.SIGUSR1)
    _, err = first.communicate(timeout=DEADLINE_S)
    assert (here / "requeued").read_text() == f"requeue {job['SLURM_JOB_ID']}\n", err
    done = read_json(here / "out/summary.json")["steps"]
    assert 2 <= done < 400
    second = launched(here, "slurm.sbatch", flags.replace("400", str(done + 2)), **job)
    _, err = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 0, err
    assert read_json(here / "out/summary.json")["steps"] == done + 2


def test_what_is_missing_is_asked_for(here: Path):
    for variables, said in (
        ({}, "NODES: how many machines are there?"),
        ({"NODES": 2, "MASTER": "a"}, "NODE: which machine is this, from 0 on?"),
        ({"NODES": 2, "MASTER": "a", "RENDEZVOUS": "etcd"}, "RENDEZVOUS=etcd is neither static nor c10d"),
    ):
        process = launched(here, "nodes.sh", "", **variables)
        assert said in process.communicate(timeout=DEADLINE_S)[1]
        assert process.returncode != 0
