"""A build reports its progress, and ends at once when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.waiting import running, wait_for
from toolchain.errors import BuildFailedError
from toolchain.io.events import read_events, start_child

pytestmark = pytest.mark.rtx

LARGE = "benchmarks.scale:perceptron"
# A caller that kills itself as soon as its child has begun to write the part file of the artifact.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from linux_side import build

def progress(event):
    if event["event"] == "start" and event["phase"] == "write":
        while not list(out.parent.glob(".*.part")):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

out = Path(sys.argv[1])
build("benchmarks.scale:perceptron", out, cache=False, progress=progress)
"""


@pytest.fixture(autouse=True)
def size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHMARK_MIB", "64")


@pytest.mark.usefixtures("warm_builds")
def test_convert_reports_steps_and_an_exception_of_the_callback_ends_the_build(tmp_path: Path, spool: Path) -> None:
    from linux_side import build

    events: list[dict[str, Any]] = []

    class EnoughError(Exception):
        pass

    def progress(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "progress":
            raise EnoughError

    with pytest.raises(EnoughError):
        build(LARGE, tmp_path / "out.pt2", cache=False, progress=progress)
    told = events[-1]
    assert told["phase"] == "convert" and told["step"] and 0 <= told["done"] <= told["total"]
    assert not list(spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]


@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_end_within_convert_it_does_within_a_second_and_leaves_nothing(
    told: signal.Signals, code: int, tmp_path: Path, spool: Path
) -> None:
    command = [sys.executable, "-m", "toolchain", "build", LARGE, "-o", str(tmp_path / "out.pt2"), "-q", "--no-cache"]
    build, events = start_child(command, start_new_session=True)
    with build, events:
        for event in read_events(events):
            if event["event"] == "progress":
                break
        (child,) = psutil.Process(build.pid).children()
        if told is signal.SIGINT:
            os.killpg(build.pid, told)  # as a terminal does
        else:
            build.terminate()
        start = time.monotonic()
        assert build.wait(60) == code
        seconds = time.monotonic() - start
    assert seconds < 5.0  # one on a machine that has nothing else to do
    assert not running(child.pid)
    assert not list(spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_a_kill_within_convert_says_the_phase_and_the_estimate(tmp_path: Path, spool: Path) -> None:
    from linux_side import build

    before = psutil.Process().children()

    def progress(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            for child in psutil.Process().children():
                if child not in before:
                    child.kill()  # as the system does where a memory limit is met

    with pytest.raises(BuildFailedError, match="was killed by SIGKILL") as caught:
        build(LARGE, tmp_path / "out.pt2", cache=False, progress=progress)
    assert "'convert'" in str(caught.value.where)
    assert "estimated to need 828." in str(caught.value.remedy)
    assert not list(spool.glob("trtcross-*")) and [path.name for path in tmp_path.iterdir()] == ["spool"]


@pytest.mark.usefixtures("spool")
def test_a_caller_that_is_killed_leaves_no_part_of_an_artifact(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out.pt2")], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    wait_for(lambda: not list(tmp_path.glob(".*.part")), 20)
