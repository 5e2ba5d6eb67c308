"""From the command line to a finished run: parse, check, preflight, build, fit; and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from lightrft.allocator import keep_freed_memory
from lightrft.args import Args, check, parse
from lightrft.args.preset_values import presets_named
from lightrft.args.show import print_args
from lightrft.errors import Refused, RunFailed, is_out_of_memory, os_errors_as
from lightrft.streams import steady_streams

if TYPE_CHECKING:
    from lightrft.args.settings import Notice
    from lightrft.preflight import Inputs

# Good defaults for what the user has not set; run.json shows them. NCCL_DEBUG has a good one: any level prints NCCL's
# version, and torch puts NCCL's last warning into the error that it raises.
ENVIRONMENT = {
    "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
    "TORCH_DISTRIBUTED_DEBUG": "OFF",
    "OMP_WAIT_POLICY": "passive",  # spinning threads make generation ten times slower on busy cores
    "TOKENIZERS_PARALLELISM": "false",
}


def main(program: str = "text", argv: Sequence[str] | None = None) -> int:
    """Exit code 0 finished, or stopped by a signal after saving; 2 refused; 1 failed during the run."""
    words = list(sys.argv[1:] if argv is None else argv)
    with steady_streams():
        return _exit_code(words, program)


def _exit_code(words: Sequence[str], program: str) -> int:
    try:
        return _run(words, program)
    except KeyboardInterrupt:
        lines = ["stopped at once; --load_checkpoint goes on from the newest checkpoint, if there is one"]
        _print_lines(lines, sys.stderr)
        return RunFailed.exit_code
    except (Refused, RunFailed) as error:
        _print_lines((f"error: {line}" for line in str(error).splitlines()), sys.stderr)
        return error.exit_code
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        remedy = "lower --micro_train_batch_size, --micro_rollout_batch_size or the lengths"
        _print_lines([f"error: out of memory: {reason}; {remedy}"], sys.stderr)
        return RunFailed.exit_code


def _run(words: Sequence[str], program: str) -> int:
    world_size = _world_size(os.environ.get("WORLD_SIZE", "1"))
    with os_errors_as(Refused):
        args = parse(words, world_size=world_size, program=program)
    if args.run.print_args is not None:
        _show(print_args(args, args.run.print_args))
        return 0
    notices = check(args, world_size, strict=args.run.strict_args, program=program)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return _train(args, notices)


def _world_size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise Refused(
            f"WORLD_SIZE={text!r} in the environment is no number of processes; torchrun sets it, or unset it"
        )
    return int(text)


def _print_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Where the reader has closed the pipe, or the disk is full, the lines are lost and the run goes on."""
    with suppress(OSError):
        for line in lines:
            print(line, file=stream, flush=True)


def _show(text: str) -> None:
    """Prints the result of a command. The reader may close the pipe early; a full disk fails the run."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return
    except OSError as error:
        raise RunFailed(f"standard output cannot be written to: {error.strerror}") from error


def _train(args: Args, notices: Sequence[Notice]) -> int:
    keep_freed_memory()
    from lightrft.build.trainer import build_trainer  # imports torch
    from lightrft.loop.finished import finished_already
    from lightrft.loop.lock import FolderLock
    from lightrft.loop.run_folders import folders_of
    from lightrft.ranks.launch import leave_world

    _print_notices(notices)
    if (finished := finished_already(args)) is not None:
        _print_lines([finished])
        return 0
    only_check = args.run.dry_run or args.run.assume_gpus is not None
    inputs = _preflight(args, show_plan=only_check or not args.logging.quiet)
    if only_check:
        return 0
    try:
        remedy = "--load_checkpoint goes on from the newest checkpoint, if there is one"
        with FolderLock(folders_of(args)), os_errors_as(RunFailed, remedy=remedy):
            build_trainer(args, inputs).fit()
    finally:
        leave_world()
    return 0


def _preflight(args: Args, show_plan: bool) -> Inputs:
    """Reads what the run needs, and prints what the user should know of it."""
    from lightrft.plan import plan, plan_notices
    from lightrft.preflight import check_inputs

    with os_errors_as(Refused), presets_named(args):
        inputs = check_inputs(args)
        lines, notices = plan(args, inputs), plan_notices(args, inputs)
    _print_lines(inputs.skipped)
    _print_notices((*inputs.notices, *notices))
    _print_lines(lines if show_plan else [])
    return inputs


def _print_notices(notices: Iterable[object]) -> None:
    _print_lines(f"notice: {notice}" for notice in notices)
