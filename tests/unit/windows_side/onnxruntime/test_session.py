"""An artifact in onnxruntime: calls, checks, comparison with golden, and errors about missing components."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("onnx")
import numpy as np

from tests.conftest import ROOT
from toolchain import open_artifact
from toolchain.errors import IncompatibleError, MissingComponentError, TrtcrossError, UsageError
from toolchain.host.requirements import State
from windows_side.benchmark.figures import BenchmarkOptions
from windows_side.benchmark.onnx_run import measure_onnx
from windows_side.onnxruntime import plugin
from windows_side.onnxruntime.session import OnnxSession
from windows_side.options import LoadOptions, RunOptions
from windows_side.preflight import requirements
from windows_side.preflight.requirements import Runtime, check, require
from windows_side.session.samples import read_golden
from windows_side.verification.session_golden import compare_session

if TYPE_CHECKING:
    from tests.unit.windows_side.onnxruntime.reference import ReferenceRuntime

STATIC = ROOT / "tests" / "compatibility" / "schema1" / "static.pt2"


def _answers(runtime: ReferenceRuntime, path: Path, factor: float = 1.0) -> None:
    """Makes the artifact's engine return its golden outputs times ``factor``."""
    with open_artifact(path) as artifact:
        [(_, wanted)] = read_golden(artifact)
        outputs = tuple(np.asarray(output * factor, output.dtype) for output in wanted if output is not None)
        runtime.functions[artifact.engines[0].sha256[:32]] = lambda *_: outputs


def test_golden_is_compared_as_with_every_other_runtime(runtime: ReferenceRuntime) -> None:
    _answers(runtime, STATIC)
    with open_artifact(STATIC) as artifact, OnnxSession(artifact) as session:
        [error] = compare_session(artifact, session)
    assert error.relative_l2 == 0
    assert error.within
    _answers(runtime, STATIC, 1.5)
    with open_artifact(STATIC) as artifact, OnnxSession(artifact) as session:
        [error] = compare_session(artifact, session)
    assert error.relative_l2 == pytest.approx(0.5)
    assert not error.within


def test_a_call_is_checked_by_the_manifest(runtime: ReferenceRuntime) -> None:
    _answers(runtime, STATIC)
    with open_artifact(STATIC) as artifact, OnnxSession(artifact) as session:
        shape = artifact.manifest.inputs[0].shape
        right = np.zeros([int(size) for size in shape or []], np.float32)
        assert session.run({"x": right})["output"].dtype == np.float32
        for wrong, message in (
            (right.astype(np.float16), "has dtype float16, not float32"),
            (right[:0], "has size 0 in dimension 0"),
            (right[None], "dimensions, not"),
        ):
            with pytest.raises(UsageError, match=message):
                session.run({"x": wrong})
        with pytest.raises(UsageError, match="'x' is missing"):
            session.run({"y": right})


def test_kernels_are_kept_where_they_are_asked_for(runtime: ReferenceRuntime, tmp_path: Path) -> None:
    _answers(runtime, STATIC)
    with open_artifact(STATIC) as artifact:
        assert not OnnxSession(artifact, LoadOptions(runtime_cache=tmp_path)).kernels_are_cached
        assert runtime.options == {"nv_runtime_cache_path": str(tmp_path / "onnxruntime")}
        (tmp_path / "onnxruntime").mkdir()
        [node] = runtime.model.graph.node  # the plugin calls its file as the node says
        [partition] = [a.s.decode() for a in node.attribute if a.name == "partition_name"]
        (tmp_path / "onnxruntime" / partition).touch()
        assert OnnxSession(artifact, LoadOptions(runtime_cache=tmp_path)).kernels_are_cached
        OnnxSession(artifact, LoadOptions(runtime_cache=False))
        assert runtime.options == {}


def test_onnxruntime_judges_the_gpu_unless_an_unlisted_one_is_allowed(runtime: ReferenceRuntime) -> None:
    _answers(runtime, STATIC)
    with open_artifact(STATIC) as artifact:
        for allowed, told in ((False, True), (True, False)):
            OnnxSession(artifact, LoadOptions(allow_unlisted_gpu=allowed))
            keys = [item.key for item in runtime.model.metadata_props]
            assert any(key.startswith("ep_compatibility_info.") for key in keys) is told


def test_bench_measures_calls_on_the_host(runtime: ReferenceRuntime) -> None:
    _answers(runtime, STATIC)
    options = BenchmarkOptions(RunOptions(runtime="onnxruntime", runtime_cache=False), calls=5, warm_up=1)
    with open_artifact(STATIC) as artifact:
        steady = measure_onnx(artifact, options)
        assert len(steady.latency.samples) == 5
        assert steady.machine["onnxruntime"] == "1.32.0"
        graphs = BenchmarkOptions(options.loading.model_copy(update={"cuda_graphs": True}))
        with pytest.raises(UsageError, match="reads and writes fixed addresses"):
            measure_onnx(artifact, graphs)


def test_a_plugin_without_a_driver_says_so(runtime: ReferenceRuntime) -> None:
    runtime.refusal = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Failed to load library: libcuda.so.1: not found")
    with open_artifact(STATIC) as artifact, pytest.raises(IncompatibleError) as caught:
        OnnxSession(artifact)
    assert "cannot load NVIDIA's plugin: Failed to load library: libcuda.so.1: not found" in str(caught.value)
    assert "it needs NVIDIA's driver" in str(caught.value)


def test_a_plugin_that_takes_no_gpu_says_so(runtime: ReferenceRuntime) -> None:
    runtime.gpus = 0
    with open_artifact(STATIC) as artifact:
        with pytest.raises(IncompatibleError, match="finds no GPU that it takes"):
            OnnxSession(artifact)
        runtime.gpus = 1
        with pytest.raises(UsageError, match="there is no GPU 3: the plugin takes 1"):
            OnnxSession(artifact, LoadOptions(device="cuda:3"))
        with pytest.raises(UsageError, match="'cpu' is no GPU"):
            OnnxSession(artifact, LoadOptions(device="cpu"))
        with pytest.raises(UsageError, match="chooses the kernels itself"):
            OnnxSession(artifact, LoadOptions(kernels="none"))


def test_what_is_not_installed_is_named_with_the_line_that_installs_it(
    runtime: ReferenceRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(plugin, "importlib", SimpleNamespace(import_module=missing))
    with open_artifact(STATIC) as artifact, pytest.raises(MissingComponentError, match="module onnxruntime") as caught:
        OnnxSession(artifact)
    assert 'pip install "onnxruntime>=1.24" onnxruntime-ep-nv-tensorrt-rtx-cu13' in str(caught.value)


@pytest.mark.parametrize(
    ("release", "state", "found"),
    [
        ("0.4.0", State.MET, "(TensorRT-RTX 1.6.1.120)"),
        ("0.5.0", State.NOT_MET, "(TensorRT-RTX 1.7.1.116)"),
        ("9.9", State.NOT_MET, "(TensorRT-RTX of another release)"),
        (None, State.NOT_MET, "not installed"),
    ],
)
def test_the_plugin_has_to_hold_the_engines_release(
    release: str | None, state: State, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"onnxruntime": "1.32.0", "onnx": "1.23", "numpy": "2", requirements.plugins().package: release}
    monkeypatch.setattr(requirements, "version_of", versions.get)
    with open_artifact(STATIC) as artifact:
        by_name = {item.name: item for item in check(artifact, Runtime.ONNXRUNTIME)}
        plugin_item = by_name["plugin"]
        assert (plugin_item.state, by_name["onnxruntime"].state) == (state, State.MET)
        assert found in plugin_item.found
        assert {"torch", "runtime", "cuda-bindings"}.isdisjoint(by_name)
        if state is State.NOT_MET:
            assert plugin_item.remedy == f"python -m pip install {requirements.plugins().package}==0.4.0"
            others = [item for item in by_name.values() if item.name == "plugin"]
            monkeypatch.setattr(requirements, "_require_platform", lambda _: None)
            with pytest.raises(TrtcrossError, match=r"plugin: needs .* 0\.4\.0"):
                require(artifact, requirements=others, runtime=Runtime.ONNXRUNTIME)


def test_an_old_onnxruntime_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "version_of", {"onnxruntime": "1.22.1"}.get)
    with open_artifact(STATIC) as artifact:
        item = next(item for item in check(artifact, Runtime.ONNXRUNTIME) if item.name == "onnxruntime")
    assert (item.state, item.needed, item.found) == (State.NOT_MET, "onnxruntime from 1.24 on", "onnxruntime 1.22.1")
