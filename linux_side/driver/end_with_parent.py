"""Ends a child process when its parent ends for whatever reason (``man 2 prctl``, PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Asks Linux to send SIGTERM when the thread that started this process ends, or that thread's whole process.

    Args:
        parent: the parent's process id. If the parent has ended already, this process exits at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # the parent ended before the call
        sys.exit(128 + signal.SIGTERM)
