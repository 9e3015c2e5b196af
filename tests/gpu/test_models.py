"""Particular models over several calls: state, profiles, dynamic sizes, threads, several GPUs."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from examples import models
from tests.gpu.conftest import close, named, tensors
from toolchain import open_artifact
from toolchain.errors import IncompatibleError, UsageError
from windows_side import LoadedModel, load
from windows_side.execution.samples import sample_call

# More calls than are needed until a CUDA graph reads its inputs in place.
MANY = 24


def reads_in_place(model: LoadedModel, *leaves: torch.Tensor) -> bool:
    """Whether a CUDA graph reads these inputs in place; the model is called once more."""
    return model._captured is not None and model._captured.replay_in_place(leaves) is not None


def in_threads(work: Callable[..., None], calls: list[Any]) -> None:
    """Runs ``work`` for each of ``calls`` in a thread of its own, and raises what any of them raises."""
    pool = ThreadPoolExecutor(len(calls))
    try:
        for future in [pool.submit(work, *call) for call in calls]:
            future.result(timeout=120)
    finally:
        pool.shutdown(wait=False)  # for a thread that hangs


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_a_key_value_cache_decodes_as_in_pytorch(cuda_graphs: bool) -> None:
    path = named("kv_cache-fp32")
    with open_artifact(path) as opened:
        assert len(opened.engines[0].entry.aliased_io) == 2  # the engine writes into the model's own buffers
    model = load(path, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    original = models.kv_cache()[0].cuda()
    torch.manual_seed(1)
    for position in (0, 1, 2, 3, 2, 31):
        x, place = torch.randn(1, 1, 64, device="cuda"), torch.tensor([position], device="cuda")
        with torch.no_grad():
            close([model(x, place)], [original(x, place)])


def test_a_key_value_cache_decodes_from_buffers_of_the_caller() -> None:
    model = load(named("kv_cache-fp32"), allow_unlisted_gpu=True, cuda_graphs=True)
    original = models.kv_cache()[0].cuda()
    x, place = torch.empty(1, 1, 64, device="cuda"), torch.zeros(1, dtype=torch.int64, device="cuda")
    for position in range(MANY):
        x.normal_()
        place.fill_(position)
        with torch.no_grad():
            close([model(x, place)], [original(x, place)])
    assert reads_in_place(model, x, place)


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("fp16", 1e-2)])
def test_an_input_is_changed_in_place(precision: str, tolerance: float, cuda_graphs: bool) -> None:
    model = load(named(f"accumulator-{precision}"), allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    original = models.accumulator()[0].cuda()
    total, wanted, x = torch.zeros(4, 64, device="cuda"), torch.zeros(4, 64, device="cuda"), torch.empty(4, 64).cuda()
    for _ in range(MANY):
        x.normal_()
        with torch.no_grad():
            close([model(total, x), total], [original(wanted, x), wanted], tolerance=tolerance)
    assert reads_in_place(model, total, x) is cuda_graphs


def test_a_graph_reads_only_what_it_was_captured_of() -> None:
    model = load(named("two_outputs-fp32"), allow_unlisted_gpu=True, cuda_graphs=True)
    plain = load(named("two_outputs-fp32"), allow_unlisted_gpu=True)
    memory = torch.empty(16, device="cuda")
    x = memory.view(2, 8)
    for _ in range(MANY):
        memory.normal_()
        close(tensors(model(x)), tensors(plain(x)))
    assert reads_in_place(model, x)
    across = memory.view(8, 2).t()  # the same address and sizes, other strides
    close(tensors(model(across)), tensors(plain(across)))
    with pytest.raises(UsageError, match="dtype"):
        model(memory.view(torch.int32).view(2, 8))
    with pytest.raises(UsageError, match="dimension 1"):
        model(memory.view(4, 4)[:2])


def test_inputs_at_ever_new_places_cost_few_graphs() -> None:
    model = load(named("two_outputs-fp32"), allow_unlisted_gpu=True, cuda_graphs=True)
    inputs = [torch.randn(2, 8, device="cuda") for _ in range(40)]
    expected = [tensors(model(x)) for x in inputs]
    for _ in range(MANY):
        for x, want in zip(inputs, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(tensors(model(x)), want, strict=True))
    assert model._captured._hot._threshold <= 64, "each replacement doubles what the next one needs"


@contextlib.contextmanager
def captures_broken(model: LoadedModel) -> Iterator[None]:
    """Makes another thread wait for the whole GPU during each capture; CUDA refuses that, and the capture fails."""
    forward = model._flat.forward

    def wait_for_the_gpu() -> None:
        with contextlib.suppress(RuntimeError):
            torch.cuda.synchronize()

    def broken(*leaves: Any) -> Any:
        outputs = forward(*leaves)
        if torch.cuda.is_current_stream_capturing():
            in_threads(wait_for_the_gpu, [()])
        return outputs

    model._flat.forward = broken
    try:
        yield
    finally:
        model._flat.forward = forward


def test_a_capture_that_another_thread_breaks_costs_no_result(caplog: pytest.LogCaptureFixture) -> None:
    model = load(named("two_outputs-fp32"), allow_unlisted_gpu=True, cuda_graphs=True)
    x = torch.randn(2, 8, device="cuda")
    want = tensors(model(x))

    def as_before() -> None:
        assert all(torch.equal(a, b) for a, b in zip(tensors(model(x)), want, strict=True))

    with captures_broken(model):
        for _ in range(MANY):
            as_before()
    assert "copied for now" in caplog.text and not reads_in_place(model, x)
    for _ in range(10 * MANY):
        as_before()
    assert reads_in_place(model, x)


def test_a_first_capture_that_is_broken_each_time_says_so_and_may_be_tried_again() -> None:
    model = load(named("two_outputs-fp32"), allow_unlisted_gpu=True, cuda_graphs=True)
    x = torch.randn(2, 8, device="cuda")
    want = tensors(load(named("two_outputs-fp32"), allow_unlisted_gpu=True)(x))
    with captures_broken(model), pytest.raises(IncompatibleError, match="cannot be captured"):
        model(x)
    close(tensors(model(x)), want)


@pytest.mark.timeout(120)
def test_kernels_are_compiled_beside_captures() -> None:
    captured, compiled = named("two_outputs-fp32"), named("resnet18-fp32")
    with open_artifact(compiled) as opened:
        (x,), _ = sample_call(opened, torch.device("cuda:0"))
    want = tensors(load(compiled, allow_unlisted_gpu=True)(x))
    row = torch.randn(2, 8, device="cuda")
    rows = tensors(load(captured, allow_unlisted_gpu=True)(row))
    done = threading.Event()

    def compile_kernels() -> None:
        try:
            for _ in range(3):
                close(tensors(load(compiled, allow_unlisted_gpu=True, runtime_cache=False)(x)), want)
        finally:
            done.set()

    def capture() -> None:
        while not done.is_set():
            with torch.cuda.stream(torch.cuda.Stream()):
                close(tensors(load(captured, allow_unlisted_gpu=True, cuda_graphs=True)(row)), rows)

    in_threads(lambda work: work(), [(compile_kernels,), (capture,), (capture,)])


def test_models_in_threads_capture_one_after_another() -> None:
    def work(name: str) -> None:
        model = load(named(name), allow_unlisted_gpu=True, cuda_graphs=True)
        with open_artifact(named(name)) as opened:
            args, _ = sample_call(opened, model.device)
        with torch.cuda.stream(torch.cuda.Stream()):
            want = [tensor.clone() for tensor in tensors(model(*args))]
            for _ in range(MANY):
                assert all(torch.equal(a, b) for a, b in zip(tensors(model(*args)), want, strict=True))

    in_threads(work, [(name,) for name in ("two_outputs-fp32", "two_outputs-fp16", "gates-fp32", "gates-fp16")])


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_a_model_may_be_dropped_while_its_last_call_runs(cuda_graphs: bool) -> None:
    path = named("resnet18-fp32")
    model = load(path, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    with open_artifact(path) as opened:
        (x,), _ = sample_call(opened, model.device)
    want = model(x).clone()
    for _ in range(5):
        with torch.cuda.stream(torch.cuda.Stream()):
            x.add_(0)
            torch.cuda._sleep(100_000_000)  # clock cycles, so that the call has not begun when the engine is released
            got = model(x)
            del model
            assert torch.cuda.current_stream().query(), "the engine went before its work was done"
            others = [torch.full((2**20,), 3.0, device="cuda") for _ in range(16)]
            close([got], [want])
        del others
        model = load(path, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
        model(x)
        torch.cuda.synchronize()


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def memory_of_the_gpu() -> int:
    """Returns the bytes that all processes use on the GPU."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_a_dropped_model_frees_the_gpu_at_once(cuda_graphs: bool) -> None:
    path = named("resnet18-fp32")
    with open_artifact(path) as opened:
        (x,), _ = sample_call(opened, torch.device("cuda:0"))
        engine = sum(engine.size for engine in opened.engines)

    def use() -> None:
        load(path, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)(x)

    use()  # so that memory that the libraries keep does not count
    with no_collection():
        use()
        torchs, everything = torch.cuda.memory_allocated(), memory_of_the_gpu()
        for _ in range(5):
            use()
        assert torch.cuda.memory_allocated() == torchs
        if "PYTEST_XDIST_WORKER" not in os.environ:  # whose other processes may use this GPU
            assert memory_of_the_gpu() - everything < engine


def test_two_models_of_one_file_keep_states_of_their_own() -> None:
    path = named("kv_cache-fp32")
    first, second = (load(path, allow_unlisted_gpu=True) for _ in range(2))
    x, place = torch.randn(1, 1, 64, device="cuda"), torch.tensor([1], device="cuda")
    fresh = second(x, place).clone()
    for position in range(8):
        first(torch.randn(1, 1, 64, device="cuda"), torch.tensor([position], device="cuda"))
    close([second(x, place)], [fresh])


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
@pytest.mark.parametrize("name", ["resnet18-profiles-fp32", "resnet18-fp32"])
def test_batches_of_any_size_in_any_order(name: str, cuda_graphs: bool) -> None:
    path = named(name)
    model = load(path, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    torch.manual_seed(1)
    shape: Any = model.manifest.inputs[0].shape
    largest: int = shape[0].max
    x = torch.randn(largest, 3, 224, 224, device="cuda")
    rows = torch.cat([model(row[None]) for row in x])
    for batch in (1, largest, 2, 5, 1, largest):
        close([model(x[:batch])], [rows[:batch]])
    with pytest.raises(UsageError, match=f"size {largest + 1} in dimension 0"):
        model(torch.randn(largest + 1, 3, 224, 224, device="cuda"))


def test_sequences_of_any_length() -> None:
    path = named("minilm-dynamic-fp32")
    model = load(path, allow_unlisted_gpu=True)
    with open_artifact(path) as opened:
        _, call = sample_call(opened, model.device)
    whole = model(**call)
    padded = {name: torch.nn.functional.pad(value, (0, 13)) for name, value in call.items()}
    close([model(**padded)], [whole])
    close([model(**{name: value[:1] for name, value in call.items()})], [whole[:1]])


@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_threads_share_a_model(cuda_graphs: bool) -> None:
    model = load(named("two_outputs-fp32"), allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
    inputs = [torch.randn(2, 8, device="cuda") for _ in range(4)]
    expected = [tensors(model(x)) for x in inputs]
    torch.cuda.synchronize()

    def work(x: torch.Tensor, want: list[torch.Tensor]) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(200):
                got = tensors(model(x))
                torch.cuda.current_stream().synchronize()
                assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True)), "another call's numbers"

    in_threads(work, list(zip(inputs, expected, strict=True)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU here")
@pytest.mark.parametrize("cuda_graphs", [False, True], ids=["launched", "graphs"])
def test_a_model_on_each_gpu(cuda_graphs: bool) -> None:
    for name in ("mixed-fp32", "kv_cache-fp32"):
        path = named(name)
        results = []
        for device in ("cuda:0", "cuda:1"):
            model = load(path, device, allow_unlisted_gpu=True, cuda_graphs=cuda_graphs)
            with open_artifact(path) as opened:
                args, kwargs = sample_call(opened, model.device)
            for _ in range(MANY):  # the first GPU stays the current one
                out = tensors(model(*args, **kwargs))
            assert {tensor.device for tensor in out} == {torch.device(device)}
            results.append([tensor.cpu() for tensor in out])
            del model, out
            assert torch.cuda.current_device() == 0, "it changed when an engine was released"
        close(results[1], results[0])
