"""The caller's current GPU is kept. The two GPUs of these tests are only numbers."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

pytest.importorskip("torch")

import torch

from windows_side.execution.current_gpu import keep_current_gpu


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list whose only element is the number of the current GPU; callbacks are removed at the end."""
    place, callbacks = [0], list(gc.callbacks)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: place[0])
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: place.__setitem__(0, index))
    keep_current_gpu.cache_clear()
    keep_current_gpu()
    yield place
    keep_current_gpu.cache_clear()
    gc.callbacks[:] = callbacks


class Engine:
    """An engine that makes its GPU the current one when it is released, and is in a cycle, as a real one may be."""

    def __init__(self, current: list[int]) -> None:
        self.current, self.cycle = current, self

    def __del__(self) -> None:
        self.current[0] = 1


def test_it_stays_when_an_engine_is_collected(current: list[int]) -> None:
    Engine(current)
    gc.collect()
    assert current == [0]


def test_cuda_is_not_asked_before_it_is_there(current: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: asked.append("asked"))
    gc.collect()
    assert not asked


def test_a_caller_may_change_it_between(current: list[int]) -> None:
    gc.collect()
    current[0] = 1
    gc.collect()
    assert current == [1]
