"""The two ways a run ends badly. Both carry one line for the user; neither shows a traceback.

Everything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class Refused(Exception):
    """Arguments, data or preflight are refused before anything was written: exit code 2."""

    exit_code = 2


class RunFailed(Exception):
    """The run itself cannot go on, for a reason that lies outside this code: exit code 1."""

    exit_code = 1
