"""``load`` on this GPU: both readers of a graph agree to the bit, kernels are compiled ahead, calls run at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu.conftest import ROOT_OF_TESTS, copied, named, record, tensors
from toolchain import open_artifact
from windows_side import load, warm
from windows_side.benchmark.first_call import measure_first_call
from windows_side.execution.call import call_of
from windows_side.execution.flat_program import flat_program
from windows_side.execution.model import LoadedModel
from windows_side.execution.samples import sample_call
from windows_side.kernel_files import KernelFile
from windows_side.loader.loading import load_flat, load_program, local_device
from windows_side.options import LoadOptions
from windows_side.warming.sizes import calls_for

MODELS = [
    *("two_outputs-fp32", "nested-fp32", "kv_cache-fp32", "accumulator-fp32", "gates-dynamic-fp32", "patches-fp32"),
    *("mixed-fp32", "minilm-fp16"),
]
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("name", MODELS)
def test_both_readers_give_one_model(name: str) -> None:
    """The models agree over several calls, state included."""
    load(named(name), allow_unlisted_gpu=True)  # loads the runtime library
    results = []
    with open_artifact(named(name)) as artifact:
        call = sample_call(artifact, GPU)
        for read in (load_flat, lambda *args: flat_program(load_program(*args))):
            model = LoadedModel(read(artifact, GPU, local_device(GPU)), artifact.manifest, GPU)
            results.append([copied(tensors(model(*args, **kwargs))) for args, kwargs in map(copied, [call] * 3)])
            results[-1].append([tensor.clone() for tensor in model.state.values()])
    for ours, theirs in zip(*results, strict=True):
        assert len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


def test_a_program_that_is_asked_for_shares_weights_and_engines() -> None:
    model = load(named("mixed-fp32"), allow_unlisted_gpu=True)
    before = torch.cuda.memory_allocated()
    program = model.program
    assert torch.cuda.memory_allocated() - before < 2**16
    own = {value.data_ptr() for value in (*model._flat.parameters(), *model._flat.buffers())}
    kept = [value for value in (*program.state_dict.values(), *program.constants.values()) if torch.is_tensor(value)]
    assert {value.data_ptr() for value in kept} == own


def test_torchs_reader_is_not_imported() -> None:
    code = (
        "import sys, torch\nfrom windows_side import load\n"
        "load(sys.argv[1], allow_unlisted_gpu=True)\n"
        "print([name for name in ('sympy', 'torch._export.serde.serialize') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(named("mixed-fp32"))], cwd=ROOT_OF_TESTS, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("runtime", ["tensorrt", "torch"])
@pytest.mark.parametrize("name", ["gates-dynamic-fp32", "minilm-fp16", "resnet18-profiles-fp16", "mixed-fp32"])
def test_the_first_call_finds_what_was_compiled_ahead(name: str, runtime: Any, tmp_path: Path) -> None:
    if (name, runtime) == ("mixed-fp32", "tensorrt"):
        pytest.skip("it needs PyTorch")
    events: list[str] = []
    report = warm(
        named(name), runtime=runtime, runtime_cache=tmp_path, allow_unlisted_gpu=True,
        on_event=lambda event: events.append(event.kind),
    )  # fmt: skip
    assert events[0] == "start" and events[-1] == "end" and not report.cancelled
    [file] = tmp_path.glob("*.kernels")
    size = file.stat().st_size
    for graphs in (False, True):
        options = LoadOptions(allow_unlisted_gpu=True, runtime_cache=tmp_path, cuda_graphs=graphs)
        first = measure_first_call(named(name), options)
        record(
            {"warm": name, "runtime": runtime, "seconds": report.seconds, "cuda_graphs": graphs,
             "first call": first.first_call, "bytes": size, "bytes after": file.stat().st_size}
        )  # fmt: skip
        assert first.cached and first.first_call < 1


def test_cancelling_leaves_a_cache_that_serves(tmp_path: Path) -> None:
    cancel, set_at = threading.Event(), list[float]()

    def soon() -> None:
        set_at.append(time.monotonic())
        cancel.set()

    def started(event: Any) -> None:
        if event.kind == "start":
            threading.Timer(3, soon).start()

    sizes = [{"x.0": size} for size in range(2, 17)]
    path = named("resnet18-profiles-fp16")
    report = warm(path, sizes=sizes, runtime_cache=tmp_path, allow_unlisted_gpu=True, on_event=started, cancel=cancel)
    assert report.cancelled and time.monotonic() - set_at[0] < 1
    assert not list(tmp_path.glob("*.part"))
    with open_artifact(path) as artifact:
        [call] = calls_for(artifact.manifest, [{"x.0": 2}])
        leaves = [torch.zeros(shape or (), dtype=torch.float32) for shape in call.shapes]
        args, kwargs = call_of(artifact.manifest, leaves, GPU)
    load(path, allow_unlisted_gpu=True, runtime_cache=tmp_path)(*args, **kwargs)
    for file in tmp_path.glob("*.kernels"):
        assert KernelFile(tmp_path, {}).path.parent == file.parent and file.read_bytes().startswith(b"{")


@pytest.mark.parametrize(
    ("name", "graphs"), [("mixed-fp32", False), ("mixed-fp32", True), ("minilm-fp16", False), ("minilm-fp16", True)]
)
def test_calls_in_several_contexts_are_equal_to_the_bit(name: str, graphs: bool, tmp_path: Path) -> None:
    """Four threads call three contexts, each on a stream and with inputs of its own."""
    options: Any = {"allow_unlisted_gpu": True, "runtime_cache": tmp_path, "cuda_graphs": graphs}
    with open_artifact(named(name)) as artifact:
        args, kwargs = sample_call(artifact, GPU)
    before = torch.cuda.mem_get_info()[0]
    one = load(named(name), **options)
    want = copied(tensors(one(*args, **kwargs)))
    for_one = before - torch.cuda.mem_get_info()[0]
    several = load(named(name), contexts=3, **options)
    counts, wrong, until = [0] * 4, list[str](), time.monotonic() + 3

    def work(index: int) -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                while time.monotonic() < until:
                    got = tensors(several(*args, **kwargs))
                    counts[index] += 1
                    if not all(map(torch.equal, got, want)):
                        wrong.append(f"call {counts[index]} of thread {index}")
        except Exception as error:  # noqa: BLE001 - it is what is reported
            wrong.append(str(error))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    on_default_stream = tensors(several(*args, **kwargs))
    for_all = before - torch.cuda.mem_get_info()[0] - for_one
    record({"load(contexts=3)": name, "graphs": graphs, "calls": counts, "wrong": wrong[:3],
            "MiB with one context": for_one >> 20, "with three more": for_all >> 20})  # fmt: skip
    assert not wrong and all(counts) and all(map(torch.equal, on_default_stream, want))


def test_a_process_with_several_contexts_ends_as_it_should(tmp_path: Path) -> None:
    code = (
        "import sys, torch\nfrom windows_side import load\n"
        "model = load(sys.argv[1], allow_unlisted_gpu=True, runtime_cache=sys.argv[2], contexts=2)\n"
        "x = torch.zeros(2, 8, device='cuda')\nprint(len(model(x)), flush=True)"
    )
    command = [sys.executable, "-c", code, str(named("two_outputs-fp32")), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT_OF_TESTS, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "2", done.stdout + done.stderr
    assert list(tmp_path.glob("*.kernels"))
