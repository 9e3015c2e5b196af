"""Engines for Turing that are reported to be wrong there are not built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.harness import build_here
from toolchain.errors import BuildFailedError

pytestmark = pytest.mark.rtx

LINEAR = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU())
FLAT, VOLUME = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(3, 4, 3)
REFUSED: dict[str, tuple[torch.nn.Module, list[int], dict[str, Any], str, str]] = {
    "fp32 products": (LINEAR, [4, 8], {}, "no fp32 matrix products on Turing", "--precision fp16"),
    "dynamic fp32 products": (LINEAR, [4, 8], {"dynamic": ("input.0=1:4:8",)}, "no fp32 matrix products", "fp16"),
    "bf16": (FLAT, [1, 3, 8, 8], {"precision": "bf16"}, "no bfloat16 on Turing", "--precision fp16"),
    "3D convolutions": (VOLUME, [1, 3, 8, 8, 8], {}, "no 3D convolutions on Turing", "aten.convolution.default"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_turing_would_compute_wrongly_is_refused(name: str, tmp_path: Path) -> None:
    model, shape, options, problem, remedy = REFUSED[name]
    with pytest.raises(BuildFailedError) as caught:
        build_here(model, (torch.randn(shape),), folder=tmp_path, gpus=["sm_75"], **options)
    assert problem in caught.value.problem and remedy in str(caught.value.remedy)
    assert "--gpu sm_75, layer " in str(caught.value.where)


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
