"""``load(contexts=)`` on the CPU, with real graphs and operators of torch; engines are functions (``host_gpu``)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from threading import Barrier, BrokenBarrierError, Thread
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tensorrt_rtx")
pytest.importorskip("cuda.bindings")

from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from tests.conftest import ROOT  # noqa: E402
from tests.unit.windows_side.session import host_gpu  # noqa: E402
from tests.unit.windows_side.session.host_gpu import Host, sums  # noqa: E402
from toolchain import open_artifact  # noqa: E402
from toolchain.errors import IncompatibleError, UsageError  # noqa: E402
from toolchain.targets import Backend  # noqa: E402
from windows_side import load  # noqa: E402
from windows_side.engines import cuda  # noqa: E402
from windows_side.engines.cuda import OutOfMemoryError  # noqa: E402
from windows_side.engines.engine import LoadedEngine  # noqa: E402
from windows_side.execution.model import LoadedModel  # noqa: E402
from windows_side.loader import contexts  # noqa: E402
from windows_side.loader.loading import _programs  # noqa: E402
from windows_side.loader.runtime_library import load_runtime  # noqa: E402
from windows_side.options import LoadOptions  # noqa: E402

CPU = torch.device("cpu")
FOLDER = ROOT / "tests" / "compatibility" / "schema1"
X, SHIFT = torch.arange(12.0).reshape(3, 4), torch.ones(3, 4)


class _Gpu:
    def __init__(self, index: int | None) -> None: ...
    def current(self) -> Any:
        return nullcontext()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    if not torch.version.cuda:
        pytest.skip("Torch-TensorRT needs a CUDA build of torch")
    load_runtime(Backend.TENSORRT_RTX)
    made = Host()
    monkeypatch.setattr(contexts, "LoadedEngine", made.load)
    monkeypatch.setattr(contexts, "create_runtime", lambda: None)
    monkeypatch.setattr(cuda, "Gpu", _Gpu)
    monkeypatch.setattr(contexts, "_ALIGNMENT", 1)  # memory on the CPU may be anywhere
    monkeypatch.setattr(
        host_gpu._Context, "set_tensor_address",
        lambda context, name, pointer: bool(context.addresses.update({name: pointer})) or True,
    )  # fmt: skip
    yield made


def loaded(name: str, count: int) -> LoadedModel:
    with open_artifact(FOLDER / f"{name}.pt2") as artifact:
        options = LoadOptions(runtime_cache=False, contexts=count)
        (program, *beside), cache = _programs(artifact, CPU, options)
        return LoadedModel(program, artifact.manifest, CPU, cache=cache, beside=beside)


def called(model: LoadedModel, x: Any) -> Any:
    """Calls a model, and returns its results as one flat tensor."""
    return torch.cat([value.flatten() for value in pytree.tree_leaves(model(x, shift=SHIFT))])


def in_threads(model: LoadedModel, inputs: list[Any]) -> list[Any]:
    results: list[Any] = [None] * len(inputs)

    def work(index: int) -> None:
        results[index] = called(model, inputs[index])

    threads = [Thread(target=work, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_as_many_calls_run_at_once_as_there_are_contexts_and_each_has_its_own_result(host: Host) -> None:
    both = Barrier(2)

    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        both.wait(timeout=20)  # it breaks if calls are queued
        sums(inputs, outputs)

    model = loaded("mixed", 2)
    for _ in range(2):
        model(X, shift=SHIFT)  # an engine's first call in a context is alone: each context in its turn
    host.engines[0].function = function
    first, second = in_threads(model, [X, 2 * X])
    host.engines[0].function = sums
    alone = loaded("mixed", 2)
    assert torch.equal(first, called(alone, X)) and torch.equal(second, called(alone, 2 * X))
    assert not torch.equal(first, second)


def never_at_once(count: int) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Returns an engine that fails if ``count`` of its calls run at once."""
    all_of_them = Barrier(count)

    def function(inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        with pytest.raises(BrokenBarrierError):
            all_of_them.wait(timeout=0.5)
        sums(inputs, outputs)

    return function


def test_the_first_call_in_a_context_is_alone(host: Host) -> None:
    """The first call compiles or looks up kernels, and contexts that did so at once ended in a segmentation fault."""
    model = loaded("mixed", 2)
    host.engines[0].function = never_at_once(2)
    assert all(result is not None for result in in_threads(model, [X] * 2))


def test_a_call_more_waits_for_one_of_them(host: Host) -> None:
    model = loaded("mixed", 2)
    for _ in range(2):
        model(X, shift=SHIFT)
    host.engines[0].function = never_at_once(3)
    assert all(result is not None for result in in_threads(model, [X] * 3))


class Streams(TorchDispatchMode):
    """Stand-ins for the streams of a GPU: they record the order of copies, allocations, waits and engines.

    Attributes:
        order: what was done, in order.
        copies: the copies of inputs.
        kept: whether all copies were still allocated when torch's stream continued.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order = list[str]()
        self.copies = list[weakref.ref[Any]]()
        self.kept = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.clone.default:
            self.order.append("copy")
            self.copies.append(weakref.ref(result))
        elif function is torch.ops.aten.empty.memory_format:
            self.order.append("memory")
        return result

    def stream(self, name: str, handle: int) -> Any:
        def wait_stream(other: Any) -> None:
            self.order.append(f"{name} waits")
            self.kept = all(copy() is not None for copy in self.copies)

        return SimpleNamespace(cuda_stream=handle, wait_stream=wait_stream)


def test_on_the_default_stream_an_engine_reads_what_was_copied_for_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's stream waits for the default one, and for copies of inputs that are not contiguous."""
    model = loaded("static", 2)
    [call] = model._program.engines
    streams = Streams()
    call._stream = streams.stream("own", 7)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams.stream("torch", 0))
    host.engines[0].function = lambda inputs, outputs: streams.order.append("engine")
    shapes = [binding.shape for binding in host.engines[0].entry.inputs]
    inputs = [torch.ones(shape[::-1]).permute(*reversed(range(len(shape)))) for shape in shapes]
    with streams:
        call(inputs)
    assert streams.order == ["copy"] * len(inputs) + ["memory", "own waits", "engine", "torch waits"]
    assert streams.copies and streams.kept


def test_engines_are_deserialized_once_and_tensors_are_shared(host: Host) -> None:
    model = loaded("mixed", 3)
    assert len(host.engines) == 2
    copies = [model, *(other for other in (model._free.get() for _ in range(3)) if other is not None)]
    held = [[*copy._flat.buffers(), *copy._flat.parameters()] for copy in copies]
    assert len(copies) == 3 and held[0]
    assert all([value.data_ptr() for value in each] == [value.data_ptr() for value in held[0]] for each in held)


def test_engines_go_with_the_model(host: Host) -> None:
    model = loaded("mixed", 2)
    model(X, shift=SHIFT)
    shared = weakref.ref(model._cache)
    del model
    gc.collect()
    assert shared() is None


@pytest.mark.parametrize(("name", "reason"), [("kv_cache", "state"), ("foreign", "foreign")])
def test_calls_that_cannot_run_at_once_are_refused(host: Host, name: str, reason: str) -> None:
    options = LoadOptions(runtime_cache=False, contexts=2)
    with (
        open_artifact(FOLDER / f"{name}.pt2") as artifact,
        pytest.raises(IncompatibleError, match=reason) as caught,
    ):
        contexts.programs_in_contexts(artifact, CPU, options)
    assert caught.value.remedy and "contexts=1" in caught.value.remedy


def test_contexts_that_do_not_fit_are_counted_and_free_the_engines(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    create, left = LoadedEngine.create_context, [3]

    def create_context(engine: LoadedEngine) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OutOfMemoryError("the GPU has not enough memory left")
        return create(engine)

    made: list[LoadedEngine] = []
    load_engine = host.load
    monkeypatch.setattr(LoadedEngine, "create_context", create_context)
    monkeypatch.setattr(
        contexts, "LoadedEngine", lambda *args, **options: made.append(load_engine(*args, **options)) or made[-1]
    )
    with pytest.raises(OutOfMemoryError, match="1 of 4 contexts fit"):
        loaded("mixed", 4)
    assert len(made) == 2 and all(engine._engine is None for engine in made)


def test_it_is_no_exported_program(host: Host) -> None:
    with pytest.raises(UsageError, match="contexts"):
        _ = loaded("static", 2).program


@pytest.mark.parametrize("count", [0, 65, "many"])
def test_a_number_of_contexts_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(UsageError, match="contexts"):
        load(FOLDER / "static.pt2", contexts=count)
