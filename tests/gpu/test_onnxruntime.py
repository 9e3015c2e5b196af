"""onnxruntime with NVIDIA's plugin and a C++ program run artifacts on this GPU, and agree with golden I/O.

Each runs in a process of its own, as for users, because the plugin has its own TensorRT-RTX library.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Trtcross
from tests.gpu.conftest import named, record
from toolchain import open_artifact
from toolchain.formats.engine_folder import write_engine_folder
from toolchain.formats.plugins import plugins
from toolchain.host.installed import version_of

ARTIFACTS = ["two_outputs-fp32", "nested-fp32", "accumulator-fp32", "efficientnet_lite0-fp16", "minilm-fp16"]
# The program of examples/cpp, if it was built.
PROGRAM = os.environ.get("TRTCROSS_RUN_ENGINES")


@pytest.mark.skipif(not version_of(plugins().package), reason="NVIDIA's plugin for onnxruntime is not installed")
@pytest.mark.parametrize("name", ARTIFACTS)
def test_golden_in_onnxruntime(name: str, trtcross: Trtcross) -> None:
    done = trtcross("verify", named(name), "--runtime", "onnxruntime", "--allow-unlisted-gpu", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    [numbers] = [level for level in json.loads(done.stdout)["levels"] if level["level"] == "numbers"]
    for output in numbers["details"]["outputs"]:
        fields = ("sample", "name", "relative_l2", "max_relative")
        record({"artifact": name, "runtime": "onnxruntime", **{field: output[field] for field in fields}})


@pytest.mark.skipif(PROGRAM is None, reason="$TRTCROSS_RUN_ENGINES names no program")
@pytest.mark.parametrize("name", [*ARTIFACTS, "kv_cache-fp32"])
def test_golden_in_cpp(name: str, tmp_path: Path) -> None:
    with open_artifact(named(name)) as artifact:
        write_engine_folder(artifact, tmp_path / "engines")
    command = [str(PROGRAM), str(tmp_path / "engines")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
