"""Runs commands within time limits, some at a time, and reads the last line of JSON that each has printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_POLL = 0.1
_SAID = 300

Found = dict[str, Any]


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    out: Path
    began: float


def run_commands(
    commands: Mapping[str, Sequence[str]], folder: Path, *, count: int, each: float, seconds: float
) -> Iterator[tuple[str, Found]]:
    """Runs commands, and yields what each has printed, as they end.

    Args:
        commands: the commands by name, in the order in which they start.
        folder: the folder for their output.
        count: the number of commands that run at a time.
        each: the time limit of a command in seconds.
        seconds: the time limit of all. Then running commands are ended, and waiting ones are left out.

    Yields:
        A name and the last line of JSON that its process printed, with ``failed`` if the process was ended or failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting, running = list(commands), dict[str, _Running]()
    end = time.monotonic() + seconds
    try:
        while running or (waiting and time.monotonic() < end):
            while waiting and len(running) < count and time.monotonic() < end:
                name = waiting.pop(0)
                running[name] = _start(commands[name], folder / f"{name}.out")
            for name, one in list(running.items()):
                late = time.monotonic() > min(one.began + each, end)
                if one.process.poll() is None and not late:
                    continue
                del running[name]
                yield name, _end(one, each)
            time.sleep(_POLL)
    finally:
        for one in running.values():
            _end(one, each)


def _start(command: Sequence[str], out: Path) -> _Running:
    with out.open("wb") as file, out.with_suffix(".err").open("wb") as errors:
        process = subprocess.Popen(command, stdout=file, stderr=errors, start_new_session=True)
    return _Running(process, out, time.monotonic())


def _end(one: _Running, each: float) -> Found:
    seconds = time.monotonic() - one.began
    code = one.process.poll()
    if code is None:
        os.killpg(one.process.pid, signal.SIGKILL)
        one.process.wait()
    found = {"seconds": round(seconds, 1), **_last_json(one.out)}
    if code is None:
        found["failed"] = f"ended after {seconds:.0f} s of {each:.0f}"
    elif code:
        lines = one.out.with_suffix(".err").read_text(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        found["failed"] = f"ended with {code}: {last}"[:_SAID]
    return found


def _last_json(path: Path) -> Found:
    for line in reversed(path.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                found: Found = json.loads(line)
            except ValueError:  # the process ended while it wrote the line
                continue
            return found
    return {}
