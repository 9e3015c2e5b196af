"""Calls of the fast path: like an earlier one, with arrays that stay on a GPU (here the host's memory)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("torch")

import numpy as np
import torch

from tests.conftest import ROOT
from tests.unit.windows_side.session.host_gpu import Host, HostGpu, exchange_state, host, sums, torch_on_host
from toolchain.errors import IncompatibleError, UsageError
from windows_side import Session
from windows_side.engines import cuda
from windows_side.session import arrays
from windows_side.session.device_array import DeviceArray
from windows_side.session.lane import Lane
from windows_side.session.memory import DeviceMemory

__all__ = ["host"]

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """A list that gets, for each call, whether it used the fast path."""
    taken: list[bool] = []
    direct = Lane.direct

    def watched(lane: Lane, leaves: Any) -> Any:
        outputs = direct(lane, leaves)
        taken.append(outputs is not None)
        return outputs

    monkeypatch.setattr(Lane, "direct", watched)
    yield taken


@pytest.fixture
def tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_on_host(monkeypatch)


def opened(name: str, **options: Any) -> Session:
    return Session(SCHEMA1 / f"{name}.pt2", runtime_cache=False, **options)


def aligned(*shape: int, fill: float = 1.0) -> Any:
    """Returns a tensor at a multiple of 512, as torch's allocator on a GPU does."""
    whole = torch.empty(2048 + 4 * int(np.prod(shape)), dtype=torch.uint8)
    begin = -whole.data_ptr() % 512
    return whole[begin : begin + 4 * int(np.prod(shape))].view(torch.float32).view(shape).fill_(fill)


def device_array(*shape: int) -> tuple[DeviceArray, Any]:
    """Returns an array of our own, and a numpy array of the same memory."""
    array = DeviceArray(DeviceMemory(), HostGpu(0), shape, "float32", None)
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.pointer)
    return array, np.ndarray(shape, np.float32, memory)


def test_the_second_call_of_a_size_is_a_direct_call(host: Host, tensors: None, ways: list[bool]) -> None:
    with opened("dynamic") as session:
        for rows in (3, 3, 2, 3, 2):
            y = session(aligned(rows, 8, fill=rows))
            assert y.shape == (rows, 4) and (y == 8 * rows * rows).all()
        kept = [session(aligned(3, 8, fill=value)) for value in (1, 2)]
        assert [float(y[0, 0]) for y in kept] == [24, 48]  # no call changes another call's result
    assert ways == [False, True, False, True, True, True, True]


def test_by_name_and_by_place_it_is_the_same_call(host: Host, tensors: None, ways: list[bool]) -> None:
    with opened("static") as session:
        session(aligned(2, 8))
        assert (session(x=aligned(2, 8, fill=2)) == 32).all()
        assert (session.run({"x": aligned(2, 8, fill=3)})["output"] == 48).all()
    assert ways == [False, True, True]


def test_what_is_wrong_is_found_behind_calls_that_were_right(host: Host, tensors: None, ways: list[bool]) -> None:
    with opened("dynamic") as session:
        session(aligned(2, 8))
        for wrong, words in (
            (aligned(2, 8).double(), "has dtype float64"),
            (aligned(9, 8), "has size 9"),
            (aligned(2, 8).to_sparse(), "not a dense tensor"),
            (aligned(2, 4), "has size 4"),
        ):
            with pytest.raises(UsageError, match=words):
                session(wrong)
        host.engines[0].fails = True
        with pytest.raises(IncompatibleError, match="does not run"):
            session(aligned(2, 8))
        host.engines[0].fails = False
        assert (session(aligned(2, 8)) == 16).all()
    with pytest.raises(UsageError, match="closed"):
        session(aligned(2, 8))


def test_arrays_that_cannot_be_read_in_place_are_copied(host: Host, tensors: None, ways: list[bool]) -> None:
    with opened("static") as session:
        session(aligned(2, 8))
        wide = aligned(2, 32, fill=7)
        wide.view(-1)[1:17] = 1
        assert (session(aligned(8, 2, fill=2).t()) == 32).all()  # not in C order
        assert (session(wide.view(-1)[1:17].view(2, 8)) == 16).all()  # at an address that is not aligned
        assert (session(torch._neg_view(aligned(2, 8))) == -16).all()  # with torch's lazy negation
    assert ways == [False, False, False, False]


def test_results_of_ours_go_in_again(host: Host, ways: list[bool]) -> None:
    host.functions[0] = lambda inputs, outputs: outputs["output0"].fill(inputs["x"].sum())
    with opened("static") as session:
        x, values = device_array(2, 8)
        for value in (1.0, 2.0, 3.0, 4.0):
            values[...] = value
            assert session(x).numpy()[0, 0] == 16 * value
        assert len(host.memory.blocks) == 2  # the memory of a result is reused by the next
    assert ways == [False, True, True, True]


def test_state_that_the_engine_writes_goes_on(host: Host, tensors: None, ways: list[bool]) -> None:
    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        outputs["output0"][...] = inputs["state_keys"].sum()
        inputs["state_keys"][:, :, :1] += 1

    host.functions[0] = function
    step, place = aligned(1, 2, 1, 4), aligned(2).view(torch.int64).fill_(0)
    with opened("kv_cache") as session:
        assert [float(session(step, step, step, place).flatten()[0]) for _ in range(4)] == [0, 8, 16, 24]
    assert ways == [False, True, True, True]


def test_state_that_must_be_copied_allows_no_direct_call(
    host: Host, tensors: None, ways: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange_state(host, monkeypatch)
    step, place = aligned(1, 2, 1, 4), aligned(2).view(torch.int64).fill_(0)
    with opened("kv_cache") as session:
        assert [float(session(step, step, step, place).flatten()[0]) for _ in range(3)] == [0, 8, 8008]
    assert ways == [False, False, False]


class Order:
    """Records the waits of streams, torch's allocations and the runs of engines, in order."""

    def __init__(self) -> None:
        self.said = list[str]()

    def event(self) -> Any:
        def record(stream: int) -> None:
            self.said.append(f"after {stream}")

        return SimpleNamespace(
            record=record, hold_up=lambda stream: self.said.append(f"waits {stream}"),
            close=lambda: None, synchronize=lambda: None,
        )  # fmt: skip

    def noting(self, word: str, function: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.said.append(word)
            return function(*args, **kwargs)

        return called


def test_an_engine_writes_to_torchs_memory_when_torch_is_done_with_it(
    host: Host, tensors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch works on the default stream and the session does not; another thread may just have released the memory."""
    order = Order()
    with opened("static", contexts=2) as session:
        x = aligned(2, 8)
        kind = arrays._torch_tensor(x, torch, UsageError).kind
        monkeypatch.setattr(kind, "stream", lambda: 0)
        monkeypatch.setattr(kind, "empty", order.noting("memory", kind.empty))
        monkeypatch.setattr(cuda, "Event", order.event)
        host.engines[0].function = order.noting("engine", sums)
        session(x)
    engine = order.said.index("engine")
    assert order.said[engine - 3 : engine] == ["memory", "after 0", "waits 77"]
