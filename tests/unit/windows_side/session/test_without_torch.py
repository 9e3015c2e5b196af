"""A session is made, called and closed where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("tensorrt_rtx")

# Makes torch look as if it were not installed: it can neither be imported nor found.
ABSENT = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torch_tensorrt", "torchvision"]))
"""
PROGRAM = """
import numpy as np
import pytest
from tests.unit.windows_side.session.host_gpu import on_host
from windows_side import Session, check
host = on_host(pytest.MonkeyPatch())
path = "tests/compatibility/schema1/dynamic.pt2"
assert check(path, "tensorrt")
with Session(path, runtime_cache=False) as session:
    print(session.run({"x": np.ones((3, 8), np.float32)})["output"].tolist())
    try:
        session(np.ones((9, 8), np.float32))
    except Exception as error:
        print(error.problem)
assert not [name for name, module in sys.modules.items() if module and name.partition(".")[0].startswith("torch")]
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ABSENT + program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_session_needs_no_torch() -> None:
    lines = run(PROGRAM).splitlines()
    assert lines == [str([[24.0] * 4] * 3), "the input 'x' has size 9 in dimension 0, outside 1 to 8"]


def test_the_test_would_see_torch() -> None:
    with pytest.raises(AssertionError, match="import of torch halted"):
        run("from windows_side import load")


def test_the_real_engines_api_has_what_a_session_calls() -> None:
    """TensorRT makes no engine without a GPU, so only the names of the real classes are checked."""
    import tensorrt_rtx as trt

    for kind, names in {
        trt.Runtime: ["deserialize_cuda_engine"],
        trt.ICudaEngine: [
            "get_tensor_name", "num_io_tensors", "get_tensor_location", "get_tensor_shape", "get_tensor_profile_shape",
            "num_optimization_profiles", "create_runtime_config", "create_execution_context",
        ],
        trt.IRuntimeConfig: [
            "dynamic_shapes_kernel_specialization_strategy", "create_runtime_cache", "set_runtime_cache",
        ],
        trt.IRuntimeCache: ["serialize", "deserialize"],
        trt.IExecutionContext: [
            "set_input_shape", "get_tensor_shape", "set_tensor_address", "set_optimization_profile_async",
            "execute_async_v3",
        ],
    }.items():  # fmt: skip
        assert set(names) <= set(dir(kind))
    assert trt.DynamicShapesKernelSpecializationStrategy.LAZY.value == 0
