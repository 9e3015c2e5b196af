"""Calls of a session on a GPU that is the host's memory (``host_gpu``): arrays, structure, state, errors."""

from __future__ import annotations

import io
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")

import numpy as np

from tests.conftest import ROOT
from tests.unit.windows_side.session.host_gpu import Host, HostEngine, exchange_state, host
from toolchain.errors import IncompatibleError, MalformedArtifactError, TrtcrossError, UsageError
from windows_side import Session
from windows_side.engines import cuda, engine, kernels
from windows_side.engines.cuda import OutOfMemoryError
from windows_side.engines.engine import LoadedEngine
from windows_side.launch_lock import LaunchLock
from windows_side.preflight import requirements
from windows_side.session import running

__all__ = ["host"]

SCHEMA1 = ROOT / "tests" / "compatibility" / "schema1"


def opened(name: str, **options: Any) -> Session:
    return Session(SCHEMA1 / f"{name}.pt2", runtime_cache=False, **options)


def ones(*shape: int, dtype: str = "float32") -> Any:
    return np.ones(shape, dtype)


def test_numpy_goes_in_and_comes_out(host: Host) -> None:
    with opened("static") as session:
        y = session(ones(2, 8))
    assert isinstance(y, np.ndarray) and y.dtype == np.float32 and y.shape == (2, 4)
    assert (y == 16).all()


def test_run_takes_and_gives_names(host: Host) -> None:
    with opened("static") as session:
        assert list(session.run({"x": ones(2, 8)})) == ["output"]


def test_a_feed_with_a_name_too_few_and_one_too_many_names_both(host: Host) -> None:
    with opened("static") as session, pytest.raises(UsageError, match=r"lacks 'x'.*'y'"):
        session.run({"y": ones(2, 8)})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ones(2, 8, dtype="float64"), "has dtype float64, not float32"),
        (ones(2, 8).astype(">f4"), "has dtype >f4, not float32"),
        (ones(3, 8), "has size 3 in dimension 0, not 2"),
        (ones(2, 8, 1), "has 3 dimensions, not 2"),
        ([[1.0] * 8] * 2, "is a list, not an array"),
        (None, "is a NoneType, not an array"),
    ],
)
def test_a_wrong_input_is_named(host: Host, value: Any, words: str) -> None:
    with opened("static") as session, pytest.raises(UsageError, match=f"the input 'x' {words}"):
        session(value)


def test_an_input_that_is_not_in_c_order_is_copied(host: Host) -> None:
    seen = []
    host.functions[0] = lambda inputs, outputs: seen.append(inputs["x"].copy())
    x = np.arange(16, dtype=np.float32).reshape(8, 2).T
    with opened("static") as session:
        session(x)
    assert (seen[0] == x).all()


def test_a_result_outlives_later_calls_and_the_session(host: Host) -> None:
    with opened("static") as session:
        first = session(ones(2, 8))
        session(ones(2, 8) * 2)
    assert (first == 16).all()


def test_torch_tensors_of_the_host_come_back_as_such(host: Host) -> None:
    torch = pytest.importorskip("torch")
    with opened("static") as session:
        y = session(torch.ones(8, 2).t())
    assert isinstance(y, torch.Tensor) and y.dtype is torch.float32 and (y == 16).all()


class OnGpu:
    """Another library's array, which claims to be on the GPU."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__array_interface__, "version": 3, "stream": None}


def test_an_array_on_the_gpu_gives_arrays_on_the_gpu(host: Host) -> None:
    with opened("static") as session:
        y = session(OnGpu(ones(2, 8)))
        again = session.run({"x": OnGpu(ones(2, 8))})["output"]
    assert y.shape == (2, 4) and y.__cuda_array_interface__["data"][0] == y.pointer
    assert (y.numpy() == 16).all() and (np.asarray(again) == 16).all()


def test_an_array_on_the_gpu_that_is_not_in_c_order_is_refused(host: Host) -> None:
    with opened("static") as session, pytest.raises(UsageError, match="'x' is not in C order"):
        session(OnGpu(ones(8, 2).T))


def test_dlpack_is_read(host: Host) -> None:
    class Library:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack__(self, **options: Any) -> Any:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> Any:
            return self.array.__dlpack_device__()

    with opened("static") as session:
        assert (session(Library(ones(2, 8))) == 16).all()
        with pytest.raises(UsageError, match="not in C order"):
            session(Library(ones(8, 2).T))


def test_the_profile_that_fits_is_chosen_and_kept(host: Host) -> None:
    with opened("dynamic") as session:
        for rows in (1, 2, 4, 8, 3, 1):
            assert session(ones(rows, 8)).shape == (rows, 4)
    assert host.engines[0].profiles_used == [1, 0]


class Alone(LaunchLock):
    """Counts the calls that ran while no other could."""

    count = 0

    @contextmanager
    def capturing(self) -> Iterator[None]:
        self.count += 1
        with super().capturing():
            yield


@pytest.mark.parametrize(
    ("rows", "alone"),
    [
        ((1, 1, 1), 1),
        ((1, 4, 1, 4), 2),
        ((3, 8, 3, 3), 3),  # in the other profile it has different kernels
        ((*range(1, 9), *range(1, 9)), 16),  # more than are remembered, so that they count as first calls again
    ],
)
def test_the_first_call_of_each_size_in_each_profile_is_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch, rows: tuple[int, ...], alone: int
) -> None:
    bounds = [[[1, 8], [1, 8], [4, 8]], [[3, 8], [4, 8], [8, 8]]]  # both accept 3 and 4
    monkeypatch.setattr(HostEngine, "get_tensor_profile_shape", lambda engine, name, index: bounds[index])
    monkeypatch.setattr(engine, "MOST_SHAPES", 4)
    monkeypatch.setattr(kernels, "LaunchLock", Alone)
    with opened("dynamic") as session:
        for count in rows:
            session(ones(count, 8))
        launches = session._running._kernels.launches
    assert isinstance(launches, Alone) and launches.count == alone


def test_a_size_outside_its_range_is_refused_as_load_does(host: Host) -> None:
    with opened("dynamic") as session, pytest.raises(UsageError, match="size 9 in dimension 0, outside 1 to 8"):
        session(ones(9, 8))
    assert not host.engines[0].calls


def _write_keys(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    position = int(inputs["position"][0])
    outputs["output0"][...] = inputs["state_keys"].sum()
    inputs["state_keys"][:, :, position : position + 1] = inputs["key"]


def test_state_goes_on_from_call_to_call_where_an_engine_writes_it_in_place(host: Host) -> None:
    host.functions[0] = _write_keys
    step = ones(1, 2, 1, 4)
    with opened("kv_cache") as session:
        sums = [float(session(step, step, step, np.array([i])).flat[0]) for i in range(4)]
    assert sums == [0, 8, 16, 24]


def test_two_contexts_of_a_model_with_state_are_refused(host: Host) -> None:
    with pytest.raises(UsageError, match="state that its calls change"):
        opened("kv_cache", contexts=2)


def test_what_needs_torch_is_named(host: Host) -> None:
    with pytest.raises(IncompatibleError, match=r"aten\.cumsum\.default, aten\.mul\.Tensor"):
        opened("mixed")


def test_bytes_and_files_are_artifacts_too(host: Host) -> None:
    data = (SCHEMA1 / "static.pt2").read_bytes()
    for source in (data, io.BytesIO(data)):
        with Session(source, runtime_cache=False) as session:
            assert (session(ones(2, 8)) == 16).all()


@pytest.mark.parametrize("source", [b"", b"PK", io.BytesIO(b"nothing")])
def test_a_stream_that_ends_early_is_a_damaged_artifact(host: Host, source: Any) -> None:
    whole = (SCHEMA1 / "static.pt2").read_bytes()
    for cut in (source, whole[:-1], whole[: len(whole) // 2]):
        with pytest.raises(MalformedArtifactError):
            Session(cut)


@pytest.mark.parametrize("source", [io.StringIO("text"), object(), 3])
def test_what_is_no_file_of_bytes_is_refused(source: Any) -> None:
    with pytest.raises(UsageError):
        Session(source)


def test_an_engine_whose_bytes_were_changed_reaches_nobody(host: Host) -> None:
    data = bytearray((SCHEMA1 / "static.pt2").read_bytes())
    middle = data.index(b"dnRydA") + 4000  # within the engine's base64
    data[middle] = ord("A") if data[middle] != ord("A") else ord("B")
    with pytest.raises(MalformedArtifactError, match="digest"):
        Session(bytes(data), runtime_cache=False)
    assert not host.engines


def test_a_closed_session_says_so_and_closes_twice(host: Host) -> None:
    session = opened("kv_cache")
    session.close()
    session.close()
    with pytest.raises(UsageError, match="the session is closed"):
        session(*[ones(1, 2, 1, 4)] * 3, np.array([0]))
    assert not host.memory.blocks and not host.pinned.blocks


def test_arrays_of_a_closed_session_free_themselves(host: Host) -> None:
    with opened("static") as session:
        y = session(OnGpu(ones(2, 8)))
    assert len(host.memory.blocks) == 1
    del y
    assert not host.memory.blocks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_gets_an_error(host: Host) -> None:
    session = opened("static")
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            session(ones(2, 8))
        except TrtcrossError as error:
            os.write(writing, str(error).encode())
        session.close()  # frees nothing of the parent's
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert "another process" in answer.read()
    os.waitpid(child, 0)
    assert (session(ones(2, 8)) == 16).all()


def test_threads_share_a_session(host: Host) -> None:
    wrong = []
    with opened("static", contexts=2) as session:

        def work(factor: int) -> None:
            for _ in range(50):
                if not (session(ones(2, 8) * factor) == 16 * factor).all():
                    wrong.append(factor)

        threads = [Thread(target=work, args=(factor,)) for factor in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_failure_gives_memory_back_and_the_session_goes_on(host: Host) -> None:
    with opened("static") as session:
        session(ones(2, 8))
        blocks = len(host.memory.blocks)
        host.engines[0].fails = True
        for _ in range(5):
            with pytest.raises(IncompatibleError, match="does not run"):
                session(ones(2, 8))
        host.engines[0].fails = False
        assert (session(ones(2, 8)) == 16).all()
        assert len(host.memory.blocks) == blocks


def test_memory_that_is_short_is_an_error_of_its_own(host: Host) -> None:
    with opened("static") as session:
        host.memory.limit = 16
        with pytest.raises(IncompatibleError, match="not enough memory"):
            session(ones(2, 8))
        host.memory.limit = None
        assert (session(ones(2, 8)) == 16).all()


@pytest.mark.parametrize("stream", ["seven", object()])
def test_what_is_no_stream_is_refused(stream: Any) -> None:
    with pytest.raises(UsageError, match="is no CUDA stream"):
        opened("static", stream=stream)


@pytest.mark.parametrize("make", [lambda: 5, lambda: type("S", (), {"cuda_stream": 5})()])
def test_work_goes_to_the_stream_that_is_named(host: Host, make: Callable[[], Any]) -> None:
    with opened("static", stream=make()) as session:
        session(ones(2, 8))
    assert set(host.memory.streams) == {5}


@pytest.mark.parametrize("contexts", [0, -1, 65, 1.0, True])
def test_a_number_of_contexts_that_is_none_is_refused(contexts: Any) -> None:
    with pytest.raises(UsageError, match="contexts"):
        opened("static", contexts=contexts)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened"):
        Session(tmp_path / "nothing.pt2")


def test_without_a_gpu_it_says_what_to_do() -> None:
    if sys.platform == "win32":
        pytest.skip("the artifact is for Windows")
    with pytest.raises(IncompatibleError, match="this machine is"):
        opened("static")


def test_state_that_becomes_other_state_is_read_before_it_is_written(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our builds write no such graph; Torch-TensorRT's own might."""

    exchange_state(host, monkeypatch)
    step = ones(1, 2, 1, 4)
    with opened("kv_cache") as session:
        assert [float(session(step, step, step, np.array([0])).flat[0]) for _ in range(3)] == [0, 8, 8008]


def test_a_call_that_waits_while_the_session_is_closed_gets_an_error(host: Host) -> None:
    running, go_on = Event(), Event()

    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        running.set()
        assert go_on.wait(10)

    host.functions[0] = function
    session = opened("static")
    told: list[str] = []

    def call() -> None:
        try:
            session(ones(2, 8))
        except UsageError as error:
            told.append(error.problem)

    first, *waiting = [Thread(target=call) for _ in range(3)]
    first.start()
    assert running.wait(10)
    closing = Thread(target=session.close)
    for thread in (*waiting, closing):
        thread.start()
    go_on.set()
    for thread in (first, *waiting, closing):
        thread.join(10)
        assert not thread.is_alive()
    assert set(told) <= {"the session is closed"}
    assert not host.memory.blocks


def test_leaves_of_another_number_are_refused(host: Host) -> None:
    with opened("static") as session, pytest.raises(UsageError, match="takes 1 leaves, and 2 were passed"):
        session.run_leaves([ones(2, 8), ones(2, 8)])


def test_memory_that_is_on_no_gpu_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(pointer: int) -> int:
        raise ValueError("not in memory of a GPU, nor in pinned memory")

    monkeypatch.setattr(cuda, "gpu_of", unknown)
    with opened("static") as session, pytest.raises(UsageError, match="'x' says that it is on a GPU, and is not in"):
        session(OnGpu(ones(2, 8)))


def test_contexts_that_do_not_fit_are_counted_and_leave_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[None] = []

    def create(self: Any) -> Any:
        if len(made) == 2:
            raise OutOfMemoryError("the GPU has 3 MiB left, and an execution context needs 4")
        made.append(None)
        return create_context(self)

    create_context = LoadedEngine.create_context
    monkeypatch.setattr(LoadedEngine, "create_context", create)
    with pytest.raises(IncompatibleError, match="2 of 5 contexts fit: the GPU has 3 MiB left") as caught:
        opened("static", contexts=5)
    assert not host.memory.blocks
    engines = [weakref.ref(engine) for engine in host.engines]
    host.engines.clear()
    assert caught.value and not any(engine() for engine in engines), "the error's frames hold what was made"


def test_a_gpu_that_fails_is_an_error_and_the_session_closes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*_: Any) -> None:
        raise IncompatibleError("the GPU failed: unspecified launch failure")

    session = opened("static")
    assert (session(ones(2, 8)) == 16).all()
    for name in ("synchronize", "copy_to_device", "copy_to_host"):
        monkeypatch.setattr(cuda, name, failed)
    for _ in range(2):
        with pytest.raises(IncompatibleError, match="the GPU failed"):
            session(ones(2, 8))
    session.close()
    with pytest.raises(UsageError, match="closed"):
        session(ones(2, 8))


def test_an_engine_of_another_release_is_refused_before_tensorrt_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "host_platform", lambda: "windows-x86_64")
    monkeypatch.setattr(requirements, "version_of", lambda package: "1.5.0.114")
    with pytest.raises(
        IncompatibleError, match=r"runtime: needs tensorrt-rtx 1\.6\.1\.120 exactly, here tensorrt-rtx 1\.5"
    ) as it:
        opened("static")
    assert "python -m pip install tensorrt-rtx==1.6.1.120" in str(it.value.remedy)


def test_an_array_on_another_gpu_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "gpu_of", lambda pointer: 1)
    with opened("static") as session, pytest.raises(UsageError, match="'x' is on cuda:1, not on cuda:0"):
        session(OnGpu(ones(2, 8)))


@pytest.mark.parametrize("device", ["cpu", "cuda:-1", "gpu", -1, True, None, 1.0])
def test_what_names_no_gpu_is_refused(device: Any) -> None:
    with pytest.raises(UsageError, match="there is no GPU"):
        opened("static", device=device)


def test_a_plan_that_tensorrt_refuses_is_distinguished_from_short_memory(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = type("Runtime", (), {"deserialize_cuda_engine": lambda self, plan: None})()
    monkeypatch.setattr(running, "LoadedEngine", lambda _, *rest, **options: LoadedEngine(runtime, *rest, **options))
    monkeypatch.setattr(cuda, "free_memory", lambda: 2**30)
    with pytest.raises(MalformedArtifactError, match="does not take the engine"):
        opened("static")
    monkeypatch.setattr(cuda, "free_memory", lambda: 100)
    with pytest.raises(OutOfMemoryError, match="the GPU has 0 MiB left"):
        opened("static")
    assert not host.memory.blocks
