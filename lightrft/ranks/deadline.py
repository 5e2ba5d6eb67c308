"""A deadline that the kernel and a C handler keep, for a process whose interpreter does not get to run any more."""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import threading
import time

STUCK = 3  # exit code; SIGQUIT has the same number, see below
STDERR = 2
DEFAULT = None  # SIG_DFL, a null pointer


class _Event(ctypes.Structure):  # struct sigevent, with its padding
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("how", ctypes.c_int),
        ("padding", ctypes.c_byte * 48),
    ]


class _Times(ctypes.Structure):  # struct itimerspec: no interval, then the seconds from now on
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "seconds", "nanoseconds")]


class Deadline:
    """Unless it is put off once more in time: Python stacks of all threads on standard error, and exit code 3.

    A regular expression that backtracks for hours, or a C extension in an endless loop, lets no other Python thread
    run. So a timer of the kernel sends SIGQUIT; faulthandler's handler writes the stacks and hands on to the one before
    it, which is the C library's `_exit`: a handler is called with the number of its signal, and SIGQUIT's is 3.
    Where there is no such timer (macOS) faulthandler's own does it, with exit code 1.

    The seconds are of processor time of the thread that makes this, which is the one that runs: a timer of the wall
    clock would expire while the process is stopped, and end it as soon as it goes on. So a call that holds the lock
    and sleeps is not found.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._make_timer() if hasattr(self._libc, "timer_create") else None

    def put_off(self, seconds: float) -> None:
        if self._timer is None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=STDERR)
        else:
            self._set(seconds)

    def lift(self) -> None:
        if self._timer is None:
            faulthandler.cancel_dump_traceback_later()
        else:
            self._set(0)
            self._libc.timer_delete(self._timer)
            faulthandler.unregister(signal.SIGQUIT)
            self._libc.signal(signal.SIGQUIT, DEFAULT)

    def _make_timer(self) -> ctypes.c_void_p:
        libc = self._libc
        libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        libc.signal(signal.SIGQUIT, ctypes.cast(libc._exit, ctypes.c_void_p))
        faulthandler.register(signal.SIGQUIT, file=STDERR, all_threads=True, chain=True)
        timer = ctypes.c_void_p()
        event = _Event(signal=signal.SIGQUIT)
        clock = time.pthread_getcpuclockid(threading.get_ident())
        if libc.timer_create(clock, ctypes.byref(event), ctypes.byref(timer)):
            raise OSError(ctypes.get_errno(), "timer_create")
        return timer

    def _set(self, seconds: float) -> None:
        times = _Times(seconds=int(seconds), nanoseconds=int(seconds % 1 * 1e9))
        self._libc.timer_settime(self._timer, 0, ctypes.byref(times), None)
