"""Runs a command at a pseudo-terminal. POSIX only."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence


def at_a_terminal(command: Sequence[str], *, columns: int = 80, **environment: str) -> str:
    """Returns what a command writes to a terminal with ``columns`` columns, control sequences included."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    child = subprocess.Popen(
        command, stdout=theirs, stderr=theirs, env={**inherited, "TERM": "xterm-256color", **environment}
    )
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 4096):
            text += chunk
    except OSError:  # the end, on Linux
        pass
    child.wait()
    os.close(ours)
    return text.decode().replace("\r\n", "\n")
