"""Fixtures for tests that need an NVIDIA GPU, and artifacts that ``ci/gpu-artifacts.sh`` built without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

# Each process of pytest-xdist has a different first GPU; this must be set before torch counts them.
if "TRTCROSS_GPUS" in os.environ:
    _gpus = os.environ["TRTCROSS_GPUS"].split(",")
    _first = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % len(_gpus)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_gpus[_first:] + _gpus[:_first])

import torch
from torch.utils import _pytree as pytree

ROOT_OF_TESTS = Path(__file__).parent.parent.parent
ARTIFACTS = Path(os.environ.get("TRTCROSS_ARTIFACTS", ".artifacts"))
# The file to which each measured error is appended, one JSON document per line.
REPORT = Path(os.environ["TRTCROSS_GPU_REPORT"]) if "TRTCROSS_GPU_REPORT" in os.environ else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="NO GPU HERE: nothing in tests/gpu was run"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "windows_artifact" in metafunc.fixturenames:
        found = sorted(ARTIFACTS.glob("*.pt2"))
        metafunc.parametrize("windows_artifact", found, ids=[path.stem for path in found])


@pytest.fixture
def artifact(windows_artifact: Path) -> Path:
    """An artifact that is converted to this host; its engines' bytes are those that Windows gets."""
    return for_this_host(windows_artifact)


def for_this_host(windows_artifact: Path) -> Path:
    """Converts an artifact to this host, once for all tests, and returns its path."""
    from filelock import FileLock

    from toolchain import open_artifact
    from toolchain.convert import convert_artifact
    from toolchain.targets import Platform

    out = windows_artifact.parent / "linux" / windows_artifact.name
    out.parent.mkdir(exist_ok=True)
    with FileLock(out.with_suffix(".lock")):  # of the processes of pytest-xdist
        if not out.exists():
            with open_artifact(windows_artifact) as opened:
                convert_artifact(opened, out, Platform.LINUX_X86_64)
    return out


def named(name: str) -> Path:
    """Returns one artifact of the set, converted to this host."""
    path = ARTIFACTS / f"{name}.pt2"
    if not path.exists():
        pytest.skip(f"{path} was not built")
    return for_this_host(path)


def record(row: dict[str, Any]) -> None:
    """Prints a measured error, and appends it to the report if one was asked for."""
    print("\nERROR", json.dumps(row))
    if REPORT:
        with REPORT.open("a") as file:
            file.write(json.dumps(row) + "\n")


def copied(call: Any) -> Any:
    """Returns copies of a call's arguments, because a model may change its inputs."""
    return pytree.tree_map_only(torch.Tensor, torch.clone, call)


def tensors(result: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def close(got: list[torch.Tensor], want: list[torch.Tensor], *, tolerance: float = 2e-3) -> None:
    """Checks that results are as close as those of two kernels of one engine, by relative L2."""
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        error = (a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)
        assert error <= tolerance, f"relative error {error:.2e}"
