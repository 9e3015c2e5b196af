"""``Session`` in a Python of Windows without torch and without a driver raises a clear error, and does not crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(["torch", "torch_tensorrt"]))  # as if they were not installed
from toolchain.errors import IncompatibleError, TrtcrossError
from windows_side import Session, check
from windows_side.engines import cuda
from windows_side.session import running  # with CUDA's bindings and numpy
from windows_side.engines.engine import import_tensorrt

print("tensorrt_rtx", import_tensorrt().__version__)
print("requirements", *sorted(item.name for item in check(sys.argv[1], "tensorrt")))
for make in (lambda: Session(sys.argv[1]), lambda: cuda.Gpu(0)):
    try:
        make()
        print("no error")
    except TrtcrossError as error:
        print(type(error).__name__, error.problem.replace("\\n", " "), "|", error.remedy)
print("torch", [name for name, module in sys.modules.items() if module and name.startswith("torch")])
"""


@pytest.fixture(scope="module")
def packages() -> str:
    """The folder with TensorRT-RTX, CUDA's bindings and numpy for Windows."""
    folder = os.environ.get("TRTCROSS_RTX")
    if not folder:
        pytest.skip("TRTCROSS_RTX names no folder with TensorRT-RTX for Windows")
    return folder


def test_a_session_is_refused_clearly_where_there_is_no_driver(packages: str, each_artifact: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(each_artifact)], env={**os.environ, "PYTHONPATH": packages},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    version, requirements, refused, bare, torch = done.stdout.splitlines()
    assert version == "tensorrt_rtx 1.6.1.120"
    assert {"driver", "gpu", "cuda-bindings", "numpy", "runtime"} <= set(requirements.split())
    assert not {"torch", "torch-cuda", "torch-tensorrt"} & set(requirements.split())
    assert (
        refused.startswith("IncompatibleError the artifact cannot run on this machine: ") and "driver: needs" in refused
    )
    assert bare.startswith("IncompatibleError there is no GPU to run on") and "driver" in bare.partition("|")[2]
    assert torch == "torch []"
