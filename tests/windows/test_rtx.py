"""NVIDIA's TensorRT-RTX for Windows builds plans with the same header as on Linux.

Without a driver its Runtime reads no plan under Wine (deserialize_cuda_engine and get_engine_validity crash). So the
library states only its release and the size of a header, and our parser reads the headers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolchain.artifact import open_artifact
from toolchain.engine.plan_header import HEADER_SIZE, parse_plan_header
from toolchain.errors import MalformedArtifactError
from toolchain.targets import Backend

NETWORK = Path(__file__).with_name("rtx_network.py")


@pytest.fixture(scope="module")
def library() -> str:
    """The folder with the library and its bindings, which other processes use, because it may crash."""
    folder = os.environ.get("TRTCROSS_RTX")
    if not folder:
        pytest.skip("TRTCROSS_RTX names no folder with TensorRT-RTX for Windows")
    return folder


@pytest.fixture(scope="module")
def built_here(library: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """A plan that the library built on Windows, and the library's facts about itself."""
    path = tmp_path_factory.mktemp("rtx") / "here.plan"
    environment = {**os.environ, "PYTHONPATH": library}
    command = [sys.executable, NETWORK, path]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    return path.read_bytes(), json.loads(result.stdout)


def test_the_header_is_what_the_library_says(built_here: tuple[bytes, dict[str, Any]]) -> None:
    plan, library = built_here
    header = parse_plan_header(plan)
    assert library["header_size"] == HEADER_SIZE
    assert (header.backend, header.size, header.release) == (Backend.TENSORRT_RTX, len(plan), library["version"])


def test_the_same_network_from_linux_has_the_same_header(built_here: tuple[bytes, dict[str, Any]]) -> None:
    path = os.environ.get("TRTCROSS_LINUX_PLAN")
    if not path:
        pytest.skip("TRTCROSS_LINUX_PLAN names no plan: the Linux Python has no TensorRT-RTX")
    linux, windows = Path(path).read_bytes(), built_here[0]
    assert parse_plan_header(linux) == parse_plan_header(windows)


def test_the_engines_in_an_artifact_are_of_the_librarys_release(
    built_here: tuple[bytes, dict[str, Any]], each_artifact: Path
) -> None:
    library = built_here[1]
    with open_artifact(each_artifact) as opened:
        for engine in opened.engines:
            data = engine.read()
            header = parse_plan_header(data)
            assert header == engine.plan_header() and header.size == len(data)
            assert header.release == library["version"] == opened.manifest.target.runtime


def test_a_damaged_header_is_not_taken_for_one(built_here: tuple[bytes, dict[str, Any]]) -> None:
    plan = bytearray(built_here[0])
    plan[28:32] = b"ftrt"
    with pytest.raises(MalformedArtifactError):
        parse_plan_header(bytes(plan))
