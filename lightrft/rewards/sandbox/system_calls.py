"""A filter of system calls (seccomp, Linux): what only judges answers writes nothing, starts nothing, connects nowhere.

The kernel keeps it, needs no privilege for it, and gives it to every thread. A forbidden call fails with EPERM. Where
there is no such filter (another system, another processor) nothing is done, and `confinement.py` says what is left.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from dataclasses import dataclass

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
THREAD = 0x10000  # CLONE_THREAD
ANYTHING = 0xFFFFFFFF
ALLOW, FAIL = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | errno
EPERM, ENOSYS = 1, 38
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF, on 32-bit words
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
CLONE3, OTHER_NUMBERING = 435, 0x40000000  # x32's calls start there
NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS


@dataclass(frozen=True)
class Processor:
    """Numbers of system calls. `opening`: which open a file, and which argument says how."""

    architecture: int
    seccomp: int
    clone: int
    prlimit: int
    opening: dict[int, int]
    forbidden: str


# Both lists hold, in this order: creat openat2 open_by_handle_at truncate ftruncate fallocate rename(at, at2) mkdir(at)
# rmdir unlink(at) link(at) symlink(at) mknod(at) chmod chown utime *setxattr *removexattr / fork vfork execve execveat
# ptrace process_vm_readv process_vm_writev kill tkill tgkill rt_(tg)sigqueueinfo pidfd_* setsid setpgid setrlimit /
# socket socketpair io_uring_setup mq_open shmget / mount, namespaces, bpf, keys, modules, clocks, names, ioctl.
Step = tuple[int, int, int, int]  # what, steps to skip where it is so, where it is not so, with what
PROCESSORS = {
    "x86_64": Processor(
        architecture=0xC000003E,
        seccomp=317,
        clone=56,
        prlimit=302,
        opening={2: 1, 257: 2},
        forbidden="""
        85 437 304 76 77 285 82 264 316 83 258 84 87 263 86 265 88 266 133 259 90 91 268 452 92 94 93 260 132 235 280
        261 188 189 190 197 198 199
        57 58 59 322 101 310 311 62 200 234 129 297 434 438 424 112 109 160
        41 53 425 240 29
        165 166 429 430 431 432 428 442 155 161 167 168 179 272 308 321 298 323 250 248 249 169 246 320 175 313 176 164
        227 159 305 170 171 103 163 172 173 16
        """,
    ),
    "aarch64": Processor(
        architecture=0xC00000B7,
        seccomp=277,
        clone=220,
        prlimit=261,
        opening={56: 2},
        forbidden="""
        437 265 45 46 47 38 276 34 35 37 36 33 52 53 452 55 54 88 5 6 7 14 15 16
        221 281 117 270 271 129 130 131 138 240 434 438 424 157 154 164
        198 199 425 180 194
        40 39 429 430 431 432 428 442 41 51 224 225 60 97 268 280 241 282 219 217 218 142 104 294 105 273 106 170 112
        171 266 161 162 116 89 29
        """,
    ),
}


def forbid_system_calls() -> bool:
    """Whether the kernel took the filter."""
    processor = PROCESSORS.get(platform.machine())
    if sys.platform != "linux" or processor is None:
        return False
    program = _program(processor)
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))):
        return False
    set_filter, all_threads = 1, 1
    return libc.syscall(processor.seccomp, set_filter, all_threads, filter_) == 0


def _program(processor: Processor) -> bytes:
    steps = [(LOAD, 0, 0, ARCHITECTURE_AT), (EQUAL, 1, 0, processor.architecture), (RETURN, 0, 0, FAIL | EPERM)]
    steps += [(LOAD, 0, 0, NUMBER_AT), (AT_LEAST, 0, 1, OTHER_NUMBERING), (RETURN, 0, 0, FAIL | EPERM)]
    for number in map(int, processor.forbidden.split()):
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, FAIL | EPERM)]
    steps += [(EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, FAIL | ENOSYS)]  # its flags cannot be seen; clone is tried then
    for number, argument in processor.opening.items():
        steps += _by_bits(number, argument, WRITING, with_any=FAIL | EPERM, with_none=ALLOW)
    steps += _by_bits(processor.prlimit, 2, ANYTHING, with_any=FAIL | EPERM, with_none=ALLOW)  # asking is allowed
    steps += _by_bits(processor.clone, 0, THREAD, with_any=ALLOW, with_none=FAIL | EPERM)
    steps.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _by_bits(number: int, argument: int, bits: int, *, with_any: int, with_none: int) -> list[Step]:
    """For one system call: what it gets with any of these bits in the argument's low word, and with none."""
    place = ARGUMENTS_AT + 8 * argument
    return [
        (EQUAL, 0, 4, number),
        (LOAD, 0, 0, place),
        (ANY_BIT, 0, 1, bits),
        (RETURN, 0, 0, with_any),
        (RETURN, 0, 0, with_none),
    ]
