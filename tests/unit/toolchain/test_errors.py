"""Errors that cross a process boundary keep all their parts."""

from __future__ import annotations

import sys

import pytest

from toolchain.errors import BuildFailedError, MissingComponentError, ProcessEnd, TrtcrossError, error_from_json


@pytest.mark.parametrize(
    "error",
    [
        BuildFailedError("no", where="here", ended=ProcessEnd(signal=9)),
        BuildFailedError("no", remedy="yes", ended=ProcessEnd(code=3)),
        BuildFailedError("the word SIGKILL is no signal"),
        MissingComponentError("no"),
    ],
)
def test_an_error_comes_back_as_it_was(error: TrtcrossError) -> None:
    back = error_from_json(error.to_json())
    assert (type(back), str(back), back.to_json()) == (type(error), str(error), error.to_json())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_how_a_process_ended_is_data_and_words() -> None:
    assert (str(ProcessEnd.of(-9)), ProcessEnd.of(-9).killed) == ("was killed by SIGKILL", True)
    assert (str(ProcessEnd.of(-11)), ProcessEnd.of(-11).killed) == ("was killed by SIGSEGV", False)
    assert (str(ProcessEnd.of(3)), ProcessEnd.of(3).killed) == ("ended with code 3", False)
    assert str(ProcessEnd.of(-99)) == "was killed by signal 99"


@pytest.mark.parametrize("document", [None, 9, {}, {"signal": "9"}, {"signal": True, "more": 1}])
def test_nonsense_is_no_signal(document: object) -> None:
    ended = ProcessEnd.from_json(document)
    assert ended is None or (ended.code, ended.signal) == (None, None)
