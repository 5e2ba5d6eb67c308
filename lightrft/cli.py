"""From the command line to a finished run: parse, check, preflight, build, fit; and the exit code."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TextIO

from lightrft.allocator import keep_freed_memory
from lightrft.args import Args, check, parse
from lightrft.args.hardware import processes_started
from lightrft.args.preset_values import presets_named
from lightrft.args.show import print_args, remarks
from lightrft.errors import Refused, RunFailed, error_text, is_out_of_memory, os_errors_as, out_of_memory_text
from lightrft.ranks.failure import own_rank, report_error, report_failure
from lightrft.ranks.parent import die_with_launcher
from lightrft.streams import steady_streams

if TYPE_CHECKING:
    from lightrft.args.settings import Notice
    from lightrft.preflight import Inputs
    from lightrft.ranks.base import Ranks

# Good defaults for what the user has not set; run.json shows them. NCCL_DEBUG has a good one: any level prints NCCL's
# version, and torch puts NCCL's last warning into the error that it raises.
ENVIRONMENT = {
    "TORCH_NCCL_AVOID_RECORD_STREAMS": "1",
    "TORCH_DISTRIBUTED_DEBUG": "OFF",
    "OMP_WAIT_POLICY": "passive",  # spinning threads make generation ten times slower on busy cores
    "TOKENIZERS_PARALLELISM": "false",
}
# What each program has as its own defaults. Of images of a million pixels a prompt of the default length holds one.
PROGRAMS: dict[str, dict[str, object]] = {"text": {}, "vision": {"max_pixels": 1_003_520}}


def start(program: str) -> NoReturn:
    """The whole life of a process. Exit code 0: finished, or stopped by a signal after saving; 2: refused; 1: failed
    during the run; 3: the run got nowhere, or lost a process (ranks/watchdog.py).

    It ends without taking Python down: threads that libraries leave, as those of the process groups that caches of
    DTensor and DeepSpeed hold, now and then abort an interpreter that ends. One of several processes does not wait for
    what others registered, either.
    """
    die_with_launcher()
    code = main(program)
    with suppress(Exception):  # what it raises it has printed
        if _is_alone():
            atexit._run_exitfuncs()
        sys.stdout.flush()
    os._exit(code)


def main(program: str = "text", argv: Sequence[str] | None = None) -> int:
    """The exit code, except for an error of one process alone that no user can cause: this raises it."""
    words = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # where it is there, it tells of kernels nobody asked for
    with steady_streams():
        return _exit_code(words, program)


def _exit_code(words: Sequence[str], program: str) -> int:
    try:
        code = _run(words, program)
    except KeyboardInterrupt:
        text = "stopped at once; --load_checkpoint goes on from the newest checkpoint, if there is one"
        code = _failed(text, RunFailed.exit_code, label="")
    except (Refused, RunFailed) as error:
        code = _failed(str(error), error.exit_code)
    except Exception as error:
        if is_out_of_memory(error):
            code = _failed(out_of_memory_text(error), RunFailed.exit_code)
        elif _is_alone():
            _leave_world()
            raise
        else:
            code = report_error(error, first=_is_first_to_say(error_text(error)))
    if code == 0 or _is_alone():  # else that might wait for a rank that has gone, and nobody watches any more
        _leave_world()
    return code


def _is_alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


def _run(words: Sequence[str], program: str) -> int:
    world_size = processes_started()
    with os_errors_as(Refused):
        args = parse(words, PROGRAMS[program], world_size=world_size)
    if args.run.print_args is not None:
        if own_rank() == 0:
            _show_args(args, args.run.print_args, world_size)
        return 0
    notices = check(args, world_size, strict=args.run.strict_args)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    return _train(args, notices)


def _failed(text: str, exit_code: int, label: str = "error: ") -> int:
    """Said by whichever process comes first: most of what ends a run ends it on all of them."""
    if _is_first_to_say(text):
        _print_lines((f"{label}{line}" for line in text.splitlines()), sys.stderr)
    report_failure(text, exit_code)
    return exit_code


def _is_first_to_say(text: str) -> bool:
    ranks = sys.modules.get("lightrft.ranks.launch")  # imports torch: not for the refusal of a flag
    return os.environ.get("LOCAL_RANK", "0") == "0" if ranks is None else ranks.first_to_say(text)


def _leave_world() -> None:
    ranks = sys.modules.get("lightrft.ranks.launch")
    if ranks is not None:
        ranks.leave_world()


def _print_lines(lines: Iterable[str], stream: TextIO | None = None) -> None:
    """Where the reader has closed the pipe, or the disk is full, the lines are lost and the run goes on."""
    with suppress(OSError):
        for line in lines:
            print(line, file=stream, flush=True)


def _show_args(args: Args, form: str, world_size: int) -> None:
    """JSON is for a program: what there is to say stands beside it, and not in it."""
    said = remarks(args, world_size)
    _show(print_args(args, form) if form == "json" else "\n".join([print_args(args, form), *said]))
    _print_lines(said if form == "json" else (), sys.stderr)


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
    from lightrft.ranks.watchdog import watched  # imports torch where there are several processes

    with watched(args.run.watchdog_s):
        return _train_watched(args, notices)


def _train_watched(args: Args, notices: Sequence[Notice]) -> int:
    from lightrft.build.trainer import build_trainer  # imports torch
    from lightrft.loop.alike import check_alike, files, flags
    from lightrft.loop.finished import finished_already
    from lightrft.loop.lock import FolderLock
    from lightrft.loop.run_folders import folders_of
    from lightrft.ranks.together import together

    everyone = _everyone(args)
    first = everyone.rank == 0
    check_alike(flags(args), everyone)
    _print_notices(notices if first else ())
    if (finished := everyone.agree(finished_already(args) if first else None)) is not None:
        _print_lines([finished] if first else [])
        return 0
    only_check = args.run.dry_run or args.run.assume_gpus is not None
    with together(everyone):
        inputs = _preflight(args, first=first, show_plan=only_check or not args.logging.quiet)
        given = files(args, inputs.prompts, inputs.eval_prompts) if everyone.size > 1 else {}
    check_alike(given, everyone)
    if only_check:
        return 0
    with ExitStack() as held:
        with together(everyone):
            if first:
                held.enter_context(FolderLock(folders_of(args)))
        with os_errors_as(RunFailed, remedy="--load_checkpoint goes on from the newest checkpoint, if there is one"):
            build_trainer(args, inputs).fit()
    return 0


def _everyone(args: Args) -> Ranks:
    """Several processes meet before they read anything, so that what one of them refuses ends all."""
    from lightrft.ranks.base import ONE_RANK

    if processes_started() == 1:
        return ONE_RANK
    from lightrft.ranks.collectives import Collectives
    from lightrft.ranks.launch import join_world

    timeout = timedelta(seconds=args.distributed.dist_timeout_s)
    return Collectives(join_world(args.distributed.sp_size, timeout), everyone=True)


def _preflight(args: Args, *, first: bool, show_plan: bool) -> Inputs:
    """Reads what the run needs; the first process prints what the user should know of it."""
    from lightrft.plan import plan, plan_notices
    from lightrft.preflight import check_inputs

    with os_errors_as(Refused), presets_named(args):
        inputs = check_inputs(args, first=first)
        lines, notices = plan(args, inputs), plan_notices(args, inputs)
    if first:
        _print_lines(inputs.skipped)
        _print_notices((*inputs.notices, *notices))
        _print_lines(lines if show_plan else [])
    return inputs


def _print_notices(notices: Iterable[object]) -> None:
    _print_lines(f"notice: {notice}" for notice in notices)
