"""Tests that need processes of their own: bad engine info, import orders, the runtime cache, the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.conftest import ARTIFACTS, named
from windows_side.benchmark.first_call import measure_first_call
from windows_side.options import LoadOptions


def python(program: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    print(result.stdout, result.stderr[-2000:])
    assert result.returncode == 0
    return result.stdout


BAD_ENGINES = {
    "wrong ABI version": "fields[0] = '9'",
    "too few fields": "del fields[5:]",
    "truncated engine": "fields[3] = fields[3][: len(fields[3]) // 2]",
    "not for this platform": "fields[8] = 'windows_x86_64'",
    "no base64 at all": "fields[3] = b'nothing of the kind'",
}


@pytest.mark.parametrize("damage", list(BAD_ENGINES))
def test_bad_engine_info_is_an_error_and_no_crash(damage: str) -> None:
    program = f"""
import torch
from toolchain import open_artifact
from windows_side.loader.runtime_library import load_runtime
from windows_side.loader.replace import make_engine
with open_artifact({str(ARTIFACTS / "two_outputs-fp32.pt2")!r}) as artifact:
    load_runtime(artifact.manifest.target.backend)
    fields = list(artifact.placeholders[0].fields)
    fields[8] = "linux_x86_64"
    fields[3] = artifact.engines[0].read()
    {BAD_ENGINES[damage]}
    try:
        make_engine(fields)
    except Exception as error:
        print("REFUSED", type(error).__name__, str(error)[:300])
"""
    assert "REFUSED" in python(program)


@pytest.mark.parametrize("first", ["torch_tensorrt", "ours"])
def test_torch_tensorrt_may_be_imported_before_or_after(first: str) -> None:
    path = named("two_outputs-fp32")
    theirs, ours = "import torch_tensorrt", f"model = load({str(path)!r}, allow_unlisted_gpu=True)"
    order = [theirs, ours] if first == "torch_tensorrt" else [ours, theirs]
    program = "\n".join(["import torch", "from windows_side import load", *order,
                         "print(model(torch.ones(2, 8, device='cuda'))[0].sum().item())"])  # fmt: skip
    python(program)


def test_loading_imports_no_part_of_torch_tensorrt() -> None:
    path = named("two_outputs-fp32")
    program = f"""
import sys
from windows_side import load
load({str(path)!r}, allow_unlisted_gpu=True)
print("IMPORTED", sorted(name for name in sys.modules if name.split(".")[0] in ("torch_tensorrt", "tensorrt_rtx")))
"""
    assert "IMPORTED []" in python(program)


def test_a_second_process_finds_the_kernels_compiled(tmp_path: Path) -> None:
    path = named("resnet18-fp32")
    cache = tmp_path / "kernels"
    loading = LoadOptions(allow_unlisted_gpu=True, runtime_cache=cache)
    cold, warm = (measure_first_call(path, loading) for _ in range(2))
    assert not cold.cached and warm.cached
    (file,) = cache.glob("*.kernels")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    damaged = measure_first_call(path, loading)
    assert not damaged.cached and file.read_bytes()[:64] == data[:64]


def test_models_may_be_collected_late_and_in_any_order(tmp_path: Path) -> None:
    names = ("accumulator-fp32", "two_outputs-fp32", "gates-dynamic-fp32", "kv_cache-fp32")
    paths = [str(path) for path in map(named, names)]
    program = f"""
import gc, torch
from toolchain import open_artifact
from windows_side import load
from windows_side.execution.samples import sample_call
kept = []
for turn in range(2):  # the second finds the kernels compiled
    for path in {paths!r}:
        for graphs in (False, True):
            model = load(path, allow_unlisted_gpu=True, cuda_graphs=graphs, runtime_cache={str(tmp_path)!r})
            with open_artifact(path) as artifact:
                args, kwargs = sample_call(artifact, model.device)
            try:
                model(*args, **kwargs)
                raise ValueError("keeps the model alive by its traceback")
            except ValueError as error:
                kept.append((error, kept))
                del model
    others = [bytes(size) for size in range(1000, 300_000, 1000)]
    kept = []
    gc.collect()
    torch.cuda.synchronize()
print("COLLECTED")
"""
    assert "COLLECTED" in python(program)


def test_kernels_are_kept_though_only_threads_have_called(tmp_path: Path) -> None:
    path = named("resnet18-fp32")
    program = f"""
import logging, sys, threading
from pathlib import Path
from toolchain import open_artifact
from windows_side import load
from windows_side.execution.samples import sample_call
logging.basicConfig(stream=sys.stdout)
folder, models = Path({str(tmp_path)!r}), []
def work():
    models.append(load({str(path)!r}, allow_unlisted_gpu=True, runtime_cache=folder))
    with open_artifact({str(path)!r}) as artifact:
        args, kwargs = sample_call(artifact, models[0].device)
    for batch in (4, 2, 8):
        models[0](args[0][:1].repeat(batch, 1, 1, 1))
        (kernels,) = folder.glob("*.kernels")
        print("SIZE", kernels.stat().st_size)
    kernels.unlink()
    models[0]._cache._file._known = b""
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert not list(folder.glob("*.kernels"))
"""
    output = python(program)
    assert "not kept" not in output
    sizes = [int(line.split()[1]) for line in output.splitlines() if line.startswith("SIZE")]
    assert sorted(set(sizes)) == sizes, "each size adds kernels of its own"
    assert list(tmp_path.glob("*.kernels")), "at exit, by the main thread"


def test_the_commands(tmp_path: Path) -> None:
    path = named("resnet18-fp32")

    def command(*words: str, code: int = 0) -> dict[str, object]:
        line = [sys.executable, "-m", "toolchain", *words, "--json"]
        result = subprocess.run(line, capture_output=True, text=True, timeout=300)
        print(result.stderr[-2000:])
        assert result.returncode == code
        document: dict[str, object] = json.loads(result.stdout)
        return document

    allow = "--allow-unlisted-gpu"
    assert command("verify", str(path), allow, "--html", str(tmp_path / "page.html"))["ok"]
    first = command("bench", str(path), allow, "--no-first-call", "--html", str(tmp_path / "bench.html"))
    baseline = tmp_path / "baseline.json"
    first["latency"]["median"] /= 100  # type: ignore[index]
    baseline.write_text(json.dumps(first))
    slower = ["--baseline", str(baseline), "--fail-over", "10%"]
    assert "slower" in str(command("bench", str(path), allow, "--no-first-call", *slower, code=6)["error"])
    assert command("bench", str(path), allow, "--no-first-call", "--cuda-graphs")["ok"]
    folder = os.environ.get("TRTCROSS_GPU_PAGES")
    if folder:
        for name in ("page.html", "bench.html"):
            (Path(folder) / name).write_bytes((tmp_path / name).read_bytes())
