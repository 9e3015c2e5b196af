"""Artifacts agree with their original models in eager PyTorch on the same GPU."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from examples import models
from tests.gpu.conftest import copied, record, tensors
from toolchain import open_artifact
from toolchain.manifest.models import Golden
from windows_side import load
from windows_side.execution.samples import sample_call
from windows_side.verification.golden import compare_output
from windows_side.verification.output_error import OutputError

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables TF32 in the reference, and cuDNN where it is older than the one that torch was built with."""
    # These attributes are set without monkeypatch, which cannot look them up.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    try:
        torch.backends.cudnn.version()
    except RuntimeError:
        monkeypatch.setattr(torch.backends.cudnn, "enabled", False)


def outputs(model: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """Calls a copy of a model with copies of its arguments, because a key-value cache keeps earlier calls."""
    args, kwargs = copied((args, kwargs))
    with torch.no_grad():
        return tensors(copy.deepcopy(model)(*args, **kwargs))


def test_agrees_with_the_original_on_this_gpu(windows_artifact: Path, artifact: Path) -> None:
    model = load(artifact, allow_unlisted_gpu=True)
    golden = model.manifest.golden
    assert golden is not None
    try:
        original = getattr(models, model.manifest.model.name)()[0].cuda().eval()
    except ModuleNotFoundError as error:
        pytest.skip(f"the original needs {error.name}, which is not installed here")
    with open_artifact(artifact) as opened:
        args, kwargs = sample_call(opened, model.device)
    want = outputs(original, args, kwargs)
    precision = model.manifest.settings.get("precision") or "fp32"
    cast = _in_precision(original, args, kwargs, _DTYPES[precision]) if precision in _DTYPES else None
    got, wrong = tensors(model(*args, **kwargs)), []
    for index, spec in enumerate(model.manifest.outputs):
        error = _error(got, want, index, spec.name, golden)
        peer = _error(cast, want, index, spec.name, golden) if cast else None
        record(
            {"against": "eager", "artifact": windows_artifact.stem, "output": spec.name,
             "relative_l2": error.relative_l2, "max_relative": error.max_relative,
             "eager_cast_l2": peer.relative_l2 if peer else None}
        )  # fmt: skip
        if not error.within:
            wrong.append(f"{spec.name}: {error.relative_l2:.2e}")
    assert not wrong


def _error(got: list[torch.Tensor], want: list[torch.Tensor], index: int, name: str, golden: Golden) -> OutputError:
    dtype = want[index].dtype
    tolerance = golden.tolerance[str(dtype).removeprefix("torch.")]
    return compare_output(got[index].to(dtype), want[index], tolerance, name=name)


def _in_precision(original: torch.nn.Module, args: Any, kwargs: Any, dtype: torch.dtype) -> list[torch.Tensor] | None:
    """Runs the original cast as ``build --precision`` casts it; returns None where PyTorch cannot run it."""
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs)
    )
    try:
        return outputs(copy.deepcopy(original).to(dtype), args, kwargs)
    except (NotImplementedError, RuntimeError) as error:
        print(f"PyTorch cannot run it in {dtype}: {error}")
        return None
