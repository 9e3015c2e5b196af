"""Runs ``trtcross`` as a child that ends with its parent: ``python -m linux_side.matrix.execution.child PARENT VERB``.

A killed matrix must not leave builds behind: they would take memory that the next run counts on.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from linux_side.driver.end_with_parent import end_with_parent
from toolchain.cli.main import main


def _terminated(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
    sys.exit(128 + number)  # the exception makes the build end its own child


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    end_with_parent(int(sys.argv.pop(1)))
    main()
