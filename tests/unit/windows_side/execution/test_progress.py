"""A first call that compiles kernels is shown on stderr only."""

from __future__ import annotations

import pytest

from windows_side.execution.progress import compiling


def test_one_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with compiling():
        pass
    out, err = capsys.readouterr()
    assert not out and "compiles" in err and err.count("\n") == 1
