"""Each call waits for the one before. Without a GPU there are no streams, so stand-ins record what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

pytest.importorskip("torch")

import torch

from windows_side.execution.call_order import CallOrder


@dataclass
class Stream:
    cuda_stream: int
    done: list[tuple[str, int]] = field(default_factory=list)

    def wait_stream(self, other: Stream) -> None:
        self.done.append(("wait", other.cuda_stream))

    def synchronize(self) -> None:
        self.done.append(("synchronize", self.cuda_stream))


@dataclass
class Cuda:
    current: Stream = field(default_factory=lambda: Stream(1))
    capturing: bool = False


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda index: cuda.current.cuda_stream, raising=False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: cuda.current)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: cuda.capturing)
    return cuda


def test_a_call_on_another_stream_waits_for_the_last(cuda: Cuda) -> None:
    order, first, second = CallOrder(torch.device("cuda:0")), cuda.current, Stream(2)
    for stream in (first, first, second, second, first):
        cuda.current = stream
        order.follow_the_last_call()
    assert (first.done, second.done) == ([("wait", 2)], [("wait", 1)])


def test_a_model_that_goes_waits_for_its_last_call(cuda: Cuda) -> None:
    order = CallOrder(torch.device("cuda:0"))
    order.wait_for_the_last_call()
    order.follow_the_last_call()
    order.wait_for_the_last_call()
    assert cuda.current.done == [("synchronize", 1)]


def test_a_callers_own_capture_is_nothing_to_wait_for(cuda: Cuda) -> None:
    order, first = CallOrder(torch.device("cuda:0")), cuda.current
    order.follow_the_last_call()
    cuda.current, cuda.capturing = Stream(2), True
    order.follow_the_last_call()
    order.wait_for_the_last_call()
    assert (first.done, cuda.current.done) == ([("synchronize", 1)], [])
