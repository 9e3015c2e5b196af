"""Events of a child arrive whole or not at all, on a pipe of their own that the child's own children do not get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from toolchain.io.events import VARIABLE, read_events, start_child

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows passes no pipes to children")

HEAD = "import os, sys\nfrom toolchain.io.events import events_to_parent\nevents = events_to_parent()\n"


def events_of(program: str, **options: Any) -> tuple[list[dict[str, Any]], int]:
    child, events = start_child([sys.executable, "-c", HEAD + program], **options)
    with child, events:
        return list(read_events(events)), child.wait(60)


def test_what_a_child_prints_is_no_event() -> None:
    program = "print('[convert] x ...'); os.write(2, b'{}'); events.send(event='start', phase='\u00fc\\n')"
    found, code = events_of(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert (found, code) == ([{"event": "start", "phase": "\u00fc\n"}], 0)


def test_an_event_that_a_kill_cut_short_is_left_out() -> None:
    program = """
events.send(event="start", phase="a")
os.write(events._file.fileno(), b'{"event": "sta')
os.kill(os.getpid(), 9)
"""
    assert events_of(program) == ([{"event": "start", "phase": "a"}], -9)


def test_a_childs_own_children_have_no_part_in_it() -> None:
    program = f"""
import subprocess
look = "import os, sys; os.fstat(int(sys.argv[1]))"
number = str(events._file.fileno())
code = subprocess.run([sys.executable, "-c", look, number], close_fds=False, stderr=subprocess.DEVNULL).returncode
events.send(told={VARIABLE!r} in os.environ, open=code == 0)
"""
    assert events_of(program)[0] == [{"told": False, "open": False}]


def test_a_verb_sends_its_document_whatever_becomes_of_it() -> None:
    for arguments, code in ((["doctor"], 0), (["inspect", "no-such-file"], 2), (["inspect", "--nonsense"], 2)):
        command = [sys.executable, "-m", "toolchain", *arguments]
        child, events = start_child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with child, events:
            *_, last = read_events(events)
        assert child.returncode == code
        assert last["event"] == "document"
        assert last["document"]["ok"] is (code == 0)


def test_without_a_listener_nothing_changes() -> None:
    command = [sys.executable, "-m", "toolchain", "inspect", "no-such-file", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert json.loads(done.stdout)["error"]["kind"] == "UsageError"
