"""Work of over a second is shown, as a bar on a terminal and as a line elsewhere; shorter work is not."""

from __future__ import annotations

import io
import re
import sys
import time

import click
import pytest

from tests.unit.terminal import at_a_terminal
from toolchain.progress import advance, draws, reach, showing, working

WORK = """
import time, click
from toolchain.progress import advance, showing, working
with showing():
    with working("reading every byte", total=100, delay=0.1):
        advance(50)
        time.sleep(0.3)
        click.echo("a line between")
        time.sleep(0.3)
    with working("at once"):
        pass
    click.echo("done")
"""
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")


@on_posix
def test_a_terminal_gets_a_bar_that_leaves_nothing_behind() -> None:
    text = at_a_terminal([sys.executable, "-c", WORK])
    assert re.search(r"reading every byte .*50%", click.unstyle(text))
    assert "at once" not in text
    # Only the text after the last erasure of each line remains on the screen.
    assert [line.rpartition("\x1b[2K")[2] for line in text.splitlines() if "\x1b[2K" in line][-1] == "done"
    assert "a line between" in text


@on_posix
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_plain_terminal_gets_a_line_and_no_bar(environment: dict[str, str]) -> None:
    text = at_a_terminal([sys.executable, "-c", WORK], **environment)
    assert text.splitlines() == ["reading every byte ...", "a line between", "done"]


def test_a_file_gets_a_line_of_what_takes_long_and_none_of_what_does_not() -> None:
    stream = io.StringIO()
    with showing(stream) as display:
        assert not display.bars and not draws(stream)
        with working("quick"):
            pass
        with working("slow", delay=0.05):
            time.sleep(0.2)
            advance(1)
            reach(5, 10)
    assert stream.getvalue() == "slow ...\n"


def test_a_step_within_another_takes_its_place_and_gives_it_back() -> None:
    stream = io.StringIO()
    with showing(stream) as outer, showing(), working("outer", 7):
        with working("inner", delay=0):
            assert outer.now() == ("inner", None)
        assert outer.now() == ("outer", 7)
    assert stream.getvalue() == "inner ...\n"


def test_nobody_looks_and_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with working("unseen", delay=0):
        advance(1)
    assert capsys.readouterr() == ("", "")
