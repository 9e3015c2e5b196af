"""`build` shows a bar for each phase on a terminal, with TensorRT's own progress."""

from __future__ import annotations

import re
import sys

import click
import pytest

from tests.unit.terminal import at_a_terminal

BUILD = """
import sys, time
import linux_side.commands.build as command
from toolchain.errors import BuildFailedError
import toolchain.progress

def build(model, out, *, progress, **_):
    progress({"event": "start", "phase": "convert"})
    time.sleep(1.2)
    progress({"event": "progress", "phase": "convert", "done": 3, "total": 4})
    time.sleep(0.3)
    progress({"event": "end", "phase": "convert", "seconds": 1.5})
    raise BuildFailedError("no luck", remedy="try again")

command.build_artifact = build
sys.argv = ["trtcross", "build", "m:f", "-o", "x.pt2"]
from toolchain.cli.main import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_a_phase_is_a_bar_at_a_terminal_and_lines_elsewhere() -> None:
    pytest.importorskip("linux_side.commands.build")
    text = at_a_terminal([sys.executable, "-c", BUILD], columns=100)
    shown = click.unstyle(text)
    assert re.search(r"\[convert\] converting: TensorRT builds the engines .* 75%", shown)
    kept = [line.rpartition("\x1b[2K")[2] for line in text.splitlines()]
    assert "[convert] converting: TensorRT builds the engines: 1.5 s" in kept
    assert not any("..." in line for line in kept)
    plain = at_a_terminal([sys.executable, "-c", BUILD], TERM="dumb").splitlines()
    assert plain[:2] == [
        "[convert] converting: TensorRT builds the engines ...",
        "[convert] done in 1.5 s",
    ]
