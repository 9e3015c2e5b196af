"""A session with CUDA graphs, on a GPU that is the host's memory (``host_gpu``)."""

from __future__ import annotations

import gc
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("torch")

import numpy as np
import torch

from tests.unit.windows_side.session import host_gpu
from tests.unit.windows_side.session.host_gpu import Host, host
from tests.unit.windows_side.session.test_direct import aligned, device_array, opened, tensors
from toolchain.errors import IncompatibleError
from windows_side import Session
from windows_side.session import graphs

__all__ = ["host", "tensors"]


def captured(name: str, **options: Any) -> Session:
    return opened(name, cuda_graphs=True, **options)


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def test_calls_of_numpy_replay_one_graph_for_each_set_of_sizes(host: Host) -> None:
    with captured("dynamic") as session:
        for rows in (2, 3, 2, 3, 2):
            assert (session(ones(rows, 8) * rows) == 8 * rows * rows).all()
        assert host.graphs == host.captures == 2
        assert host.launches == 5 + 2, "the first is replayed before and after the second is captured"
    assert not host.graphs and not host.memory.blocks


def test_results_are_the_callers_own(host: Host, tensors: None) -> None:
    with captured("static") as session:
        kept = [session(aligned(2, 8, fill=value)) for value in range(20)]
        assert [float(y[0, 0]) for y in kept] == [16 * value for value in range(20)]


def test_arrays_that_stay_where_they_are_are_read_and_written_in_place(host: Host) -> None:
    x, values = device_array(2, 8)
    with captured("static") as session:
        copies = []
        for value in range(12):
            values[...] = value
            before = len(host.memory.streams)
            y = session(x)
            copies.append(len(host.memory.streams) - before)
            assert (y.numpy() == 16 * value).all()
            del y  # its memory is reused by the next result
        assert copies[3] == 2 and copies[-1] == 0
        kept = [session(x).numpy() for _ in range(2)]
        assert host.captures == host.graphs == 2
    assert (kept[0] == 16 * 11).all() and not host.graphs


def test_an_in_place_capture_that_is_broken_copies_for_now(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    x, values = device_array(2, 8)
    with captured("static") as session:
        for value in range(40):
            values[...] = value
            host.broken_captures = int(host.captures == 1)
            assert (session(x).numpy() == 16 * value).all()
        assert host.captures == 3 and host.graphs == 2
    assert "copied for now" in caplog.text


def test_state_goes_on_once_a_call(host: Host, tensors: None) -> None:
    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        outputs["output0"][...] = inputs["state_keys"].sum()
        inputs["state_keys"][:, :, :1] += 1

    host.functions[0] = function
    step, place = aligned(1, 2, 1, 4), aligned(2).view(torch.int64).fill_(0)
    of_numpy = [np.ones((1, 2, 1, 4), np.float32)] * 3
    with captured("kv_cache") as session:
        found = [float(session(step, step, step, place).flatten()[0]) for _ in range(12)]
        found += [float(session(*of_numpy, np.array([0])).flat[0]) for _ in range(2)]
    assert found == [8 * count for count in range(14)]


def test_a_capture_that_is_broken_is_tried_again(host: Host) -> None:
    host.broken_captures = 2
    with captured("static") as session:
        assert (session(ones(2, 8)) == 16).all()
    assert host.captures == 3


def test_what_cannot_be_captured_says_so_and_leaves_nothing(host: Host) -> None:
    host.broken_captures = 99
    with captured("static") as session:
        for _ in range(2):
            with pytest.raises(IncompatibleError, match="cannot be captured in a CUDA graph"):
                session(ones(2, 8))
        taken = len(host.memory.blocks)
        with pytest.raises(IncompatibleError):
            session(ones(2, 8))
        assert len(host.memory.blocks) == taken
        host.broken_captures = 0
        assert (session(ones(2, 8)) == 16).all()
    assert not host.memory.blocks


def test_sizes_that_were_used_least_lately_go(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MAX_SHAPES", 2)
    with captured("dynamic") as session:
        for rows in (1, 2, 1, 3, 1, 2):
            assert (session(ones(rows, 8)) == 8 * rows).all()
        assert host.graphs == 2 and host.captures == 4


def test_a_graph_that_a_call_of_other_sizes_makes_wrong_is_captured_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT computes some values when shapes change, and keeps them outside of the graph."""
    kept, plain = [0], host_gpu._Context.set_input_shape

    def set_input_shape(context: Any, name: str, shape: tuple[int, ...]) -> bool:
        kept[0] = shape[0]
        return plain(context, name, shape)

    monkeypatch.setattr(host_gpu._Context, "set_input_shape", set_input_shape)

    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        outputs["output0"][...] = kept[0]

    host.functions[0] = function
    with captured("dynamic") as session:
        for rows in (2, 2, 3, 3, 2, 4, 3):
            assert (session(ones(rows, 8)) == rows).all()
            assert host.graphs == 1
    assert not host.graphs and not host.memory.blocks


def test_each_context_has_graphs_of_its_own(host: Host) -> None:
    with captured("static", contexts=2) as session:
        for value in range(4):
            assert (session(ones(2, 8) * value) == 16 * value).all()
        assert host.graphs == 2 and host.launches == 4
    gc.collect()
    assert not host.graphs


def test_a_capture_that_lacks_memory_reports_so(host: Host) -> None:
    with captured("static") as session:
        host.memory.limit = 16
        with pytest.raises(IncompatibleError, match="not enough memory"):
            session(ones(2, 8))
        host.memory.limit = None
        assert (session(ones(2, 8)) == 16).all()
