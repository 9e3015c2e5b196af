"""Operators that are reported to be wrong in engines on Turing are in no engine for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.harness import build_here
from toolchain.errors import BuildFailedError
from toolchain.manifest.models import build_warnings

pytestmark = pytest.mark.rtx

LINEAR = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
FLAT, VOLUME = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(3, 4, 3)


@pytest.mark.parametrize("dynamic", [(), ("input.0=1:4:8",)])
def test_fp32_products_stay_in_pytorch_and_are_named(dynamic: tuple[str, ...], tmp_path: Path) -> None:
    manifest = build_here(
        LINEAR, (torch.randn(4, 8),), folder=tmp_path, dynamic=dynamic, gpus=["sm_75"], min_block_size=1
    ).artifact.manifest
    assert any("linear" in item.operator or "addmm" in item.operator for item in manifest.fallback)
    assert any("no fp32 matrix products on Turing" in text for text in build_warnings(manifest))


def test_3d_convolutions_stay_in_pytorch(tmp_path: Path) -> None:
    model = torch.nn.Sequential(VOLUME, torch.nn.GELU())
    manifest = build_here(
        model, (torch.randn(1, 3, 8, 8, 8),), folder=tmp_path, gpus=["sm_75"], min_block_size=1
    ).artifact.manifest
    assert [item.operator for item in manifest.fallback] == ["aten.convolution.default"]
    assert any("no 3D convolutions on Turing" in text for text in build_warnings(manifest))


def test_bfloat16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="no bfloat16 on Turing") as caught:
        build_here(FLAT, (torch.randn(1, 3, 8, 8),), folder=tmp_path, gpus=["sm_75"], precision="bf16")
    assert "fp16" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("model", "shape", "options"), [(LINEAR, [4, 8], {"precision": "fp16"}), (FLAT, [1, 3, 8, 8], {})]
)
def test_what_turing_computes_is_built(
    model: torch.nn.Module, shape: list[int], options: dict[str, Any], tmp_path: Path
) -> None:
    built = build_here(model, (torch.randn(shape),), folder=tmp_path, gpus=["sm_75"], **options)
    assert built.artifact.manifest.target.compute_capabilities == ["sm_75"]


def test_newer_gpus_are_not_concerned(tmp_path: Path) -> None:
    build_here(LINEAR, (torch.randn(4, 8),), folder=tmp_path, gpus=["sm_86"])
