"""The seconds that a build still needs, estimated from past builds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from linux_side.cache import times
from linux_side.cache.times import Times, with_time_left
from linux_side.driver.building import Prepared
from linux_side.options import BuildOptions

FP16 = BuildOptions(precision="fp16")


def test_the_last_build_of_a_model_is_remembered_and_with_other_options_serves_too(tmp_path: Path) -> None:
    known = Times(tmp_path / "cache")
    assert known.of("models:a", FP16) == {}
    known.keep("models:a", BuildOptions(), {"export": 1.0, "convert": 5.0})
    assert known.of("models:a", FP16) == {"export": 1.0, "convert": 5.0}
    known.keep("models:a", FP16, {"export": 1.0, "convert": 3.0})
    assert Times(tmp_path / "cache").of("models:a", FP16)["convert"] == 3.0
    assert known.of("models:a", BuildOptions())["convert"] == 5.0 and known.of("models:b", FP16) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"a b": 1}', "\0"])
def test_what_cannot_be_read_is_learned_again(tmp_path: Path, text: str) -> None:
    (tmp_path / "times.json").write_text(text)
    known = Times(tmp_path)
    assert known.of("m", FP16) == {}
    known.keep("m", FP16, {"lower": 2.0})
    assert known.of("m", FP16) == {"lower": 2.0}


def test_no_more_are_kept_than_are_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(times, "MOST", 3)
    known = Times(tmp_path)
    for number in range(5):
        known.keep(f"m{number}", FP16, {"lower": 1.0})
    assert [bool(known.of(f"m{number}", FP16)) for number in range(5)] == [False, False, True, True, True]


def test_events_say_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(times.time, "monotonic", lambda: now[0])
    seen: list[dict[str, Any]] = []
    report = with_time_left(seen.append, {"lower": 10.0, "convert": 20.0, "write": 1.0})
    report({"event": "start", "phase": "lower"})
    report({"event": "end", "phase": "lower", "seconds": 9.0})
    report({"event": "start", "phase": "convert"})
    now[0] += 5
    report({"event": "progress", "phase": "convert", "done": 1, "total": 4})
    now[0] += 60  # slower than it was: nothing is known of what this phase has left
    report({"event": "progress", "phase": "convert", "done": 2, "total": 4})
    report({"event": "start", "phase": "precision"})
    report({"event": "warning", "text": "x"})
    assert [event.get("seconds_left") for event in seen] == [31.0, None, 21.0, 16.0, 1.0, None, None]


def test_a_program_that_was_saved_for_several_builds_is_not_known_by_its_temporary_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTCROSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TRTCROSS_CACHE_SIZE", "1GiB")
    Times(tmp_path / "cache").keep("", FP16, {"lower": 2.0})
    saved, events = tmp_path / "input.pt2", list[dict[str, Any]]()
    saved.write_bytes(b"PK\x03\x04")
    prepared = Prepared(saved, tmp_path / "out.pt2", FP16, tmp_path, cache=True, name="Net", listener=events.append)
    prepared.report({"event": "start", "phase": "lower"})
    assert events[0]["seconds_left"] == pytest.approx(2.0, abs=0.5)
