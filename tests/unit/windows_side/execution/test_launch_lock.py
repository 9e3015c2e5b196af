"""Launches may run at the same time; a capture runs alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from windows_side.launch_lock import LaunchLock

SOON, LONG = 0.05, 10.0


@contextmanager
def elsewhere(context: object) -> Iterator[tuple[Event, Event]]:
    """Enters a context in another thread; yields the event that is set inside, and the event that ends it."""
    entered, leave = Event(), Event()

    def work() -> None:
        with context:
            entered.set()
            leave.wait(LONG)

    thread = Thread(target=work, daemon=True)
    thread.start()
    yield entered, leave
    leave.set()
    thread.join(LONG)
    assert not thread.is_alive()


def test_launches_go_on_beside_each_other() -> None:
    lock = LaunchLock()
    with lock.launching, elsewhere(lock.launching) as (entered, _):
        assert entered.wait(LONG)


def test_a_capture_waits_for_launches_and_comes_before_new_ones() -> None:
    lock = LaunchLock()
    with elsewhere(lock.launching) as (launching, end_of_launch):
        assert launching.wait(LONG)
        with elsewhere(lock.capturing()) as (capturing, end_of_capture):
            assert not capturing.wait(SOON)
            with elsewhere(lock.launching) as (next_launch, _):
                assert not next_launch.wait(SOON)
                end_of_launch.set()
                assert capturing.wait(LONG)
                assert not next_launch.wait(SOON)
                end_of_capture.set()
                assert next_launch.wait(LONG)


def test_captures_come_one_after_another() -> None:
    lock = LaunchLock()
    with elsewhere(lock.capturing()) as (first, end), elsewhere(lock.capturing()) as (second, _):
        assert first.wait(LONG) or second.wait(LONG)
        assert not (first.wait(SOON) and second.wait(SOON))
        end.set()
        assert second.wait(LONG)


def test_a_capture_that_is_interrupted_while_it_waits_leaves_nothing_barred(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = LaunchLock()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with lock.launching:
        monkeypatch.setattr(lock.launching.changed, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt), lock.capturing():
            pass
    assert not lock.launching.barred
    with lock.launching:
        pass


def test_what_fails_inside_leaves_nothing_barred() -> None:
    lock = LaunchLock()
    for context in (lock.launching, lock.capturing()):
        try:
            with context:
                raise ValueError
        except ValueError:
            pass
    with elsewhere(lock.capturing()) as (entered, end):
        assert entered.wait(LONG)
        end.set()
    with lock.launching:
        pass
