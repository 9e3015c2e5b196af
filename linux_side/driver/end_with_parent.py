"""A child process that ends when its parent does, however that ends (``man 2 prctl``, PR_SET_PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Asks Linux for SIGTERM when the thread that has started this process ends, or its whole process.

    Args:
        parent: the parent's process id.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before we asked
        sys.exit(128 + signal.SIGTERM)
