"""``trtcross`` as a child that ends with its parent: ``python -m linux_side.matrix.child PARENT VERB ...``.

A matrix that is killed must not leave builds behind, which would take the memory that the next run counts on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

from toolchain.cli import main

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Asks Linux for SIGTERM when the parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before we asked
        sys.exit(128 + signal.SIGTERM)


def _terminated(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)  # as an exception: the build ends its own child on the way out


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    end_with_parent(int(sys.argv.pop(1)))
    main()
