"""``Session`` on this GPU agrees with golden I/O, and with ``load`` to the bit: arrays, state, profiles, threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from tests.gpu.conftest import ROOT_OF_TESTS, named, record
from toolchain import open_artifact
from toolchain.errors import IncompatibleError, UsageError
from windows_side import LoadedModel, Session, load
from windows_side.execution.samples import read_golden
from windows_side.session.device_array import DeviceArray
from windows_side.session.memory import DeviceMemory
from windows_side.verification.golden import compare_output

# Artifacts that need no PyTorch, each with another kind of call.
STATIC = ["two_outputs-fp32", "nested-fp32", "kv_cache-fp32", "accumulator-fp32", "minilm-fp16"]
# Its casts are outside of the engine. A byte is rounded from a number that differs from golden in the last bits.
CASTS = ["camera-fp32"]
DYNAMIC = ["gates-dynamic-fp32", "patches-fp32", "efficientnet_lite0-fp16", "resnet18-profiles-fp16"]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of kernels for both runtimes, so that each model's kernels are compiled once."""
    named = os.environ.get("TRTCROSS_RUNTIME_CACHE")
    return Path(named) if named else tmp_path_factory.mktemp("kernels")


@pytest.fixture
def opened(kernels: Path) -> Iterator[Any]:
    """Opens sessions, and closes them at the end of the test."""
    made = []

    def make(name: str, **options: Any) -> Session:
        made.append(Session(named(name), allow_unlisted_gpu=True, runtime_cache=kernels, **options))
        return made[-1]

    yield make
    for session in made:
        session.close()


def loaded(name: str, kernels: Path) -> LoadedModel:
    return load(named(name), allow_unlisted_gpu=True, runtime_cache=kernels)


def samples(name: str) -> list[tuple[list[Any], list[Any]]]:
    with open_artifact(named(name)) as artifact:
        return read_golden(artifact)


def call(callee: Any, leaves: list[Any]) -> list[Any]:
    """Calls a session or a model with leaves, and returns the leaves of its result."""
    args, kwargs = pytree.tree_unflatten(leaves, pytree.treespec_loads(callee.manifest.call.in_spec))
    return pytree.tree_leaves(callee(*args, **kwargs))


def on_gpu(leaves: list[Any]) -> list[Any]:
    return [leaf.cuda() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


def in_numpy(leaves: list[Any]) -> list[Any]:
    return [leaf.clone().numpy() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]


@pytest.mark.parametrize("name", [*STATIC, *DYNAMIC])
def test_golden_numbers_from_numpy(name: str, opened: Any) -> None:
    session = opened(name)
    golden = session.manifest.golden
    for inputs, wanted in samples(name):
        got = call(session, in_numpy(inputs))
        for spec, value, want in zip(session.manifest.outputs, got, wanted, strict=True):
            assert isinstance(value, np.ndarray)
            error = compare_output(torch.from_numpy(value), want, golden.tolerance[str(spec.dtype)], name=spec.name)
            record({"against": "golden", "runtime": "session", "artifact": name, "relative_l2": error.relative_l2})
            assert error.within


@pytest.mark.parametrize("name", [*STATIC, *CASTS])
def test_equal_to_load_to_the_bit(name: str, opened: Any, kernels: Path) -> None:
    model, session, second = loaded(name, kernels), opened(name), opened(name)
    for inputs, _ in samples(name):
        want = call(model, on_gpu(inputs))
        device = call(session, on_gpu(inputs))
        host = call(second, in_numpy(inputs))
        for a, b, c in zip(want, device, host, strict=True):
            assert b.is_cuda and torch.equal(a, b)
            assert torch.equal(a.cpu(), torch.from_numpy(c))


@pytest.mark.parametrize("name", DYNAMIC)
def test_equal_to_load_where_sizes_vary(name: str, opened: Any, kernels: Path) -> None:
    """Kernels for a call's very sizes are compiled in the background, and bits may differ until both have them."""
    model, session = loaded(name, kernels), opened(name)
    (inputs, _), *_ = samples(name)
    leaves = on_gpu(inputs)
    deadline = time.monotonic() + 3
    while True:
        want, got = call(model, leaves), call(session, leaves)
        equal = all(torch.equal(a, b) for a, b in zip(want, got, strict=True))
        if equal or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    record({"against": "load", "artifact": name, "equal_to_the_bit": equal})
    for a, b in zip(want, got, strict=True):
        error = (a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-30)
        assert error <= 2e-3


def test_state_goes_on_as_with_load(opened: Any, kernels: Path) -> None:
    model, session = loaded("kv_cache-fp32", kernels), opened("kv_cache-fp32")
    torch.manual_seed(1)
    for position in range(6):
        x, place = torch.randn(1, 1, 64), torch.tensor([position])
        want = model(x.cuda(), place.cuda())
        got = session(x.numpy(), place.numpy()) if position % 2 else session(x.cuda(), place.cuda())
        assert torch.equal(want.cpu(), torch.as_tensor(got).cpu())


def test_an_input_that_the_model_changes_is_changed(opened: Any) -> None:
    session = opened("accumulator-fp32")
    x = torch.randn(4, 64)
    in_torch, in_host = torch.zeros(4, 64, device="cuda"), np.zeros((4, 64), np.float32)
    for _ in range(3):
        y, z = session(in_torch, x.cuda()), session(in_host, x.numpy())
        assert torch.equal(y, in_torch * 2) and np.array_equal(z, in_host * 2)
    assert np.array_equal(in_torch.cpu().numpy(), in_host) and in_host.any()
    with pytest.raises(UsageError, match="not in C order, and the model changes it"):
        session(torch.zeros(64, 4, device="cuda").t(), x.cuda())


@pytest.mark.parametrize("rows", [1, 2, 8, 16, 1, 3])
def test_each_size_takes_its_profile(rows: int, opened: Any, kernels: Path) -> None:
    session = opened("resnet18-profiles-fp16")
    torch.manual_seed(0)
    x = torch.randn(rows, 3, 224, 224)
    y = session(x.cuda())
    z = session.run({"x": x.numpy()})["output"]
    assert y.shape == z.shape == (rows, 1000)
    each = torch.cat([session(x[i : i + 1].cuda()) for i in range(rows)])
    error = (y.double() - each.double()).norm() / each.double().norm()
    assert error < 1e-2, f"{error:.1e}"


def test_a_guard_and_a_range_refuse_as_load_does(opened: Any, kernels: Path) -> None:
    session, model = opened("patches-fp32"), loaded("patches-fp32", kernels)
    for length in (20, 512):
        messages = []
        for callee, x in ((session, np.zeros((2, length), np.float32)), (model, torch.zeros(2, length).cuda())):
            with pytest.raises(UsageError) as caught:
                callee(x)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


class Interface:
    """A tensor of torch that has only ``__cuda_array_interface__``, as other libraries' arrays may."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__


class Packed:
    """A tensor of torch that has only DLPack, as other libraries' arrays may."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


@pytest.mark.parametrize("kind", [Interface, Packed])
def test_other_libraries_arrays_on_the_gpu(kind: Any, opened: Any) -> None:
    session = opened("two_outputs-fp32")
    x = torch.randn(2, 8, device="cuda")
    want = session(x)
    got = session(kind(x))
    again = session(got[1].numpy().repeat(8).reshape(2, 8))  # numpy of a result of ours
    assert len(again) == 2
    for a, b in zip(want, got, strict=True):
        assert torch.equal(a, torch.as_tensor(b, device="cuda"))
        assert np.array_equal(a.cpu().numpy(), b.numpy())


def test_the_callers_stream_and_torchs_current_one(opened: Any) -> None:
    stream = torch.cuda.Stream()
    named_stream, session = opened("two_outputs-fp32", stream=stream), opened("two_outputs-fp32")
    x = torch.randn(2, 8, device="cuda")
    want = session(x)
    torch.cuda.synchronize()
    results = []
    for turn in range(20):
        with torch.cuda.stream(stream):
            results.append((named_stream if turn % 2 else session)(x.clone()))
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for result in results for a, b in zip(want, result, strict=True))


def test_wrong_inputs_are_named(opened: Any) -> None:
    session = opened("two_outputs-fp32")
    with pytest.raises(UsageError, match="'x' has dtype float16, not float32"):
        session(torch.zeros(2, 8, device="cuda", dtype=torch.float16))
    with pytest.raises(UsageError, match="not in C order"):
        session(Interface(torch.zeros(8, 2, device="cuda").t()))
    if torch.cuda.device_count() > 1:
        with pytest.raises(UsageError, match="'x' is on cuda:1, not on cuda:0"):
            session(torch.zeros(2, 8, device="cuda:1"))
    with pytest.raises(UsageError, match="there is no GPU 'cuda:99'"):
        opened("two_outputs-fp32", device=99)
    with pytest.raises(IncompatibleError, match=r"aten\.igamma\.default"):
        opened("mixed-fp32")


def call_from_threads(call_once: Callable[[int], Any], want: Any, seconds: float) -> list[int]:
    """Calls from four threads, each on a stream of its own, and compares every result.

    Args:
        call_once: makes a call of the thread with the given number, and returns the result.
        want: the right result.
        seconds: how long the threads call.

    Returns:
        The number of calls of each thread.
    """
    wrong, counts, errors = [], [0] * 4, []
    torch.cuda.synchronize()
    deadline = time.monotonic() + seconds

    def work(number: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while time.monotonic() < deadline:
                    got = torch.as_tensor(call_once(number)).cpu().numpy()
                    if not np.array_equal(got, want):
                        wrong.append(number)
                    counts[number] += 1
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and not wrong and min(counts) > 10, (errors, wrong, counts)
    return counts


@pytest.mark.parametrize("contexts", [1, 4])
def test_threads_get_equal_results(contexts: int, opened: Any) -> None:
    session = opened("minilm-fp16", contexts=contexts)
    (inputs, _), *_ = samples("minilm-fp16")
    calls = [in_numpy(inputs), on_gpu(inputs)]
    counts = call_from_threads(lambda number: call(session, calls[number % 2])[0], call(session, calls[0])[0], 5)
    record({"threads": 4, "contexts": contexts, "calls": counts})


def test_closing_frees_the_gpus_memory(kernels: Path) -> None:
    path = named("efficientnet_lite0-fp16")

    def one() -> None:
        with Session(path, allow_unlisted_gpu=True, runtime_cache=kernels) as session:
            session(np.zeros((1, 3, 224, 224), np.float32))

    one()
    before = torch.cuda.mem_get_info()[0]
    for _ in range(3):
        one()
    assert before - torch.cuda.mem_get_info()[0] < 8 * 2**20


def test_kernels_are_shared_with_load(kernels: Path, tmp_path: Path) -> None:
    path = named("two_outputs-fp32")
    x = torch.zeros(2, 8)
    load(path, allow_unlisted_gpu=True, runtime_cache=tmp_path)(x.cuda())
    with Session(path, allow_unlisted_gpu=True, runtime_cache=tmp_path) as session:
        assert session.kernels_are_cached
        session(x.numpy())
    assert load(path, allow_unlisted_gpu=True, runtime_cache=tmp_path).kernels_are_cached
    assert len(list(tmp_path.glob("*.kernels"))) == 1


_WITHOUT_TORCH = """
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torch_tensorrt"):
            raise ImportError("no torch here")
sys.meta_path.insert(0, Forbidden())
import os, numpy as np
from windows_side import Session
from toolchain.errors import UsageError
with Session(sys.argv[1], allow_unlisted_gpu=True, runtime_cache=sys.argv[2]) as session:
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    y = session(x)
    if not os.fork():  # nothing of CUDA goes on there
        try:
            session(x)
        except UsageError as error:
            print("child:", error.problem, flush=True)
        del session
        sys.exit(0)
    os.wait()
    assert (session(x)[0] == y[0]).all()
assert not {"torch", "torch_tensorrt"} & sys.modules.keys()
print("sum:", float(y[0].sum()))
try:
    session(x)
except UsageError as error:
    print("closed:", error.problem)
"""


def test_a_process_without_torch_and_its_forked_child(kernels: Path) -> None:
    path = named("two_outputs-fp32")
    command = [sys.executable, "-c", _WITHOUT_TORCH, str(path), str(kernels)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT_OF_TESTS, env=os.environ, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "child: the session was made in another process" in done.stdout
    assert "closed: the session is closed" in done.stdout
    with Session(path, allow_unlisted_gpu=True, runtime_cache=kernels) as session:
        want = float(session(np.arange(16, dtype=np.float32).reshape(2, 8))[0].sum())
    assert f"sum: {want}" in done.stdout


def test_a_named_stream_beside_torchs_own_work(opened: Any) -> None:
    """torch makes inputs, drops them and reuses their memory, while the session's stream may still read them."""
    session = opened("two_outputs-fp32", stream=torch.cuda.Stream())
    values = [torch.full((2, 8), float(value)) for value in range(50)]
    want = [session(value.cuda()) for value in values]
    torch.cuda.synchronize()
    wrong = 0
    for _ in range(20):
        got = [session(value.cuda(non_blocking=True) * 1) for value in values]
        torch.cuda.synchronize()
        wrong += sum(not torch.equal(a, b) for x, y in zip(got, want, strict=True) for a, b in zip(x, y, strict=True))
    assert not wrong


GRAPHS = {"cuda_graphs": True}


def with_graphs(name: str, kernels: Path) -> LoadedModel:
    return load(named(name), allow_unlisted_gpu=True, runtime_cache=kernels, cuda_graphs=True)


@pytest.mark.parametrize("options", [{}, GRAPHS])
@pytest.mark.parametrize("name", ["two_outputs-fp32", "minilm-fp16"])
def test_calls_again_and_again_are_equal_to_load_to_the_bit(
    name: str, options: dict[str, Any], opened: Any, kernels: Path
) -> None:
    """After the first call the fast path is used; with graphs, calls are in place from the eighth on."""
    model, session = loaded(name, kernels), opened(name, **options)
    (inputs, _), *_ = samples(name)
    buffers, kept = on_gpu(inputs), []
    for turn in range(24):
        for buffer in buffers:
            if buffer.is_floating_point():
                buffer.normal_()
        want, got = call(model, buffers), call(session, buffers)
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True)), turn
        if turn % 3 == 0:
            kept.append((want, got))
    assert all(torch.equal(a, b) for want, got in kept for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize("name", [*STATIC, *CASTS])
def test_with_graphs_it_is_equal_to_load_to_the_bit(name: str, opened: Any, kernels: Path) -> None:
    model, session, second = with_graphs(name, kernels), opened(name, **GRAPHS), opened(name, **GRAPHS)
    for inputs, _ in samples(name):
        for _ in range(3):
            want = call(model, on_gpu(inputs))
            device, host = call(session, on_gpu(inputs)), call(second, in_numpy(inputs))
            for a, b, c in zip(want, device, host, strict=True):
                assert torch.equal(a, b) and torch.equal(a.cpu(), torch.from_numpy(c))


@pytest.mark.parametrize("name", DYNAMIC)
def test_with_graphs_it_is_right_where_sizes_vary(name: str, opened: Any, kernels: Path) -> None:
    model, session = with_graphs(name, kernels), opened(name, **GRAPHS)
    (inputs, _), *_ = samples(name)
    for a, b in zip(call(model, on_gpu(inputs)), call(session, on_gpu(inputs)), strict=True):
        record({"against": "load", "graphs": True, "artifact": name, "equal_to_the_bit": torch.equal(a, b)})
        assert (a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-30) <= 2e-3


def test_graphs_of_several_sizes_in_turn(opened: Any) -> None:
    session = opened("resnet18-profiles-fp16", **GRAPHS)
    torch.manual_seed(0)
    inputs = {rows: torch.randn(rows, 3, 224, 224, device="cuda") for rows in (1, 2, 8, 16)}
    first = {rows: session(x) for rows, x in inputs.items()}
    for _ in range(12):  # the last ones are in place
        for rows, x in inputs.items():
            assert torch.equal(session(x), first[rows])
            assert np.array_equal(session(x.cpu().numpy()), first[rows].cpu().numpy())


def test_state_goes_on_with_graphs(opened: Any, kernels: Path) -> None:
    model, session = loaded("kv_cache-fp32", kernels), opened("kv_cache-fp32", **GRAPHS)
    torch.manual_seed(1)
    x, place = torch.empty(1, 1, 64, device="cuda"), torch.empty(1, dtype=torch.int64, device="cuda")
    for position in range(14):
        x.normal_(), place.fill_(position)
        want = model(x, place)
        got = session(x.cpu().numpy(), place.cpu().numpy()) if position % 5 == 4 else session(x, place)
        assert torch.equal(want.cpu(), torch.as_tensor(got).cpu())


def test_an_input_that_the_model_changes_is_changed_with_graphs(opened: Any) -> None:
    session = opened("accumulator-fp32", **GRAPHS)
    x, total, on_host = torch.randn(4, 64), torch.zeros(4, 64, device="cuda"), np.zeros((4, 64), np.float32)
    for _ in range(10):
        y, z = session(total, x.cuda()), session(on_host, x.numpy())
        assert torch.equal(y, total * 2) and np.array_equal(z, on_host * 2)
    assert np.array_equal(total.cpu().numpy(), on_host)


@pytest.mark.parametrize("options", [{}, GRAPHS])
def test_results_are_ordered_before_work_on_the_default_stream(options: dict[str, Any], opened: Any) -> None:
    session = opened("minilm-fp16", **options)
    (inputs, _), *_ = samples("minilm-fp16")
    leaves = on_gpu(inputs)
    want = torch.cat([value.flatten() for value in call(session, leaves)]).clone()
    torch.cuda.synchronize()
    for _ in range(20):
        got = torch.cat([value.flatten() for value in call(session, [leaf.clone() for leaf in leaves])]) * 1
        assert torch.equal(got, want)


def test_arrays_of_our_own_go_in_again(opened: Any) -> None:
    session = opened("two_outputs-fp32")
    x = torch.randn(2, 8, device="cuda")
    want = session(x)
    mine = DeviceArray(DeviceMemory(), session._running._gpu, (2, 8), "float32", None)
    torch.as_tensor(mine, device="cuda").copy_(x)
    torch.cuda.synchronize()
    for _ in range(4):
        for a, b in zip(want, session(mine), strict=True):
            assert np.array_equal(a.cpu().numpy(), b.numpy())


def test_threads_with_graphs_get_equal_results(opened: Any) -> None:
    """Each thread has its own arrays, at their own addresses."""
    session = opened("minilm-fp16", contexts=2, **GRAPHS)
    (inputs, _), *_ = samples("minilm-fp16")
    calls = [on_gpu(inputs) if number % 2 else in_numpy(inputs) for number in range(4)]
    counts = call_from_threads(lambda number: call(session, calls[number])[0], call(session, calls[0])[0], 4)
    record({"threads": 4, "graphs": True, "calls": counts})


def test_contexts_that_do_not_fit_are_refused_and_leave_nothing(kernels: Path) -> None:
    path = named("minilm-fp16")
    with Session(path, allow_unlisted_gpu=True, runtime_cache=kernels):
        pass
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    held = torch.empty(free - 130 * 2**20, dtype=torch.uint8, device="cuda")
    left = torch.cuda.mem_get_info()[0]
    try:
        with pytest.raises(IncompatibleError) as caught:
            Session(path, allow_unlisted_gpu=True, runtime_cache=kernels, contexts=64)
        record({"contexts that do not fit": str(caught.value)})
        assert torch.cuda.mem_get_info()[0] > left - 48 * 2**20  # the error and its frames are still there
    finally:
        del held
        torch.cuda.empty_cache()
    with Session(path, allow_unlisted_gpu=True, runtime_cache=kernels) as session:
        (inputs, _), *_ = samples("minilm-fp16")
        call(session, in_numpy(inputs))


def run_alone(program: str, *words: object, **environment: str) -> str:
    """Runs a program in a process of its own, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, cwd=ROOT_OF_TESTS,
        env={**os.environ, **environment}, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr[-3000:])
    return done.stdout


_NO_GPU = """
import sys, numpy as np
from windows_side import Session
from toolchain.errors import IncompatibleError
try:
    Session(sys.argv[1], allow_unlisted_gpu=True)
except IncompatibleError as error:
    print(error)
"""


def test_a_process_that_sees_no_gpu_gets_an_error_about_the_gpu() -> None:
    assert "GPU" in run_alone(_NO_GPU, named("two_outputs-fp32"), CUDA_VISIBLE_DEVICES="")


_FAILED = """
import sys, numpy as np, torch
from windows_side import Session
from toolchain.errors import TrtcrossError
session = Session(sys.argv[1], allow_unlisted_gpu=True, runtime_cache=sys.argv[2], cuda_graphs=sys.argv[3] == "graphs")
x = np.zeros((2, 8), np.float32)
session(x)
try:  # a kernel of torch's asserts on the GPU, and with it ends all that this process has there
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")].sum().item()
except Exception as error:
    print("torch:", type(error).__name__)
for _ in range(2):
    try:
        session(x)
    except TrtcrossError as error:
        print("told:", type(error).__name__, error.problem)
session.close()
print("closed", flush=True)
import os; os._exit(0)  # torch's own end is none of ours
"""


@pytest.mark.parametrize("graphs", ["graphs", "none"])
def test_a_gpu_that_fails_is_an_error_and_no_crash(graphs: str, kernels: Path) -> None:
    lines = run_alone(_FAILED, named("two_outputs-fp32"), kernels, graphs).splitlines()
    record({"after a failure of the GPU": lines})
    assert sum(line.startswith("told: IncompatibleError") for line in lines) == 2 and lines[-1] == "closed"
