"""Builds one row as its users would, and compares what its TensorRT networks compute with eager PyTorch."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from benchmarks.zoo.row import TIMES_EAGER, Row
from benchmarks.zoo.weights import doubts, settle

SAMPLES = 3  # at the example's sizes, the least and the greatest
# The largest relative L2 error of an output by precision, compared with fp32. In halves it may be more where eager
# PyTorch in the same halves is off by as much.
RIGHT = {None: 1e-4, "fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "auto": 1e-2}
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16, "auto": torch.float16}
_MOST_WORDS = 600

Result = dict[str, Any]


def made(row: Row) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """Returns a row's model with its weights, and the arguments and keywords of a call."""
    torch.manual_seed(0)
    model, args, *rest = row.make()
    kwargs = rest[0] if rest else {}
    model.eval().requires_grad_(False)
    if row.settled:
        settle(model, args, kwargs)
    return model, args, kwargs


def build(row: Row, keep: Path | None = None) -> Result:
    """Builds a row in this process, and compares its networks with eager PyTorch.

    Args:
        keep: where the artifact goes; None means that it is not kept.

    Returns:
        ``state`` (``right``, ``wrong``, ``unknown`` or ``refused``) and what the table shows.
    """
    began, busy = time.monotonic(), time.process_time()
    try:
        result = _built(row, keep)
    except Exception as error:  # noqa: BLE001 - the error is the row's result
        traceback.print_exc()  # goes to the row's log
        result = {"state": "refused", "reason": _said(error)}
    return {
        **result,
        "seconds": round(time.monotonic() - began, 1),
        "cpu": round(time.process_time() - busy, 1),
        "memory": _peak_memory(),
    }


def _said(error: Exception) -> str:
    """Returns an error's problem and remedy; its place is left out, because it names this machine's files."""
    from toolchain.errors import TrtcrossError

    if isinstance(error, TrtcrossError):
        return f"{error.problem}: {error.remedy}"[:_MOST_WORDS]
    return f"{type(error).__name__}: {error}"[:_MOST_WORDS]


def _built(row: Row, keep: Path | None) -> Result:
    from linux_side.frontend.golden_entry import tolerance_for
    from linux_side.frontend.source import export_source
    from linux_side.options import BuildOptions
    from tests.integration.harness import build_source, imported_builder

    model, args, kwargs = made(row)
    result: Result = {"parameters": sum(p.numel() for p in model.parameters()), "doubts": doubts(model, args, kwargs)}
    options = BuildOptions.model_validate(
        {"dynamic": list(row.dynamic), "precision": row.precision, "golden": SAMPLES, **row.options}
    )
    call = args, kwargs
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-")))
        began = time.monotonic()
        source = export_source(row.name, model, args, kwargs, options)
        built = build_source(source, options, imported_builder(), folder)
        stack.callback(built.artifact.close)
        manifest = built.artifact.manifest
        result |= {
            "build_seconds": round(time.monotonic() - began, 1),
            "engines": len(manifest.engines),
            "operators": manifest.coverage.operators,
            "in_engines": manifest.coverage.in_engines,
            "in_torch": {operator.operator: operator.count for operator in manifest.fallback},
            "bytes": built.artifact.path.stat().st_size,
            "attempts": built.attempts,
            "guards": len(manifest.guards),
            "warnings": source.golden.warnings_at(tolerance_for(options, source.program)),
        }
        if keep:
            keep.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built.artifact.path, keep)
        return result | _compared(row, built, source.golden.samples, call)


def _compared(row: Row, built: Any, samples: list[Any], call: Any) -> Result:
    began, errors, sizes = time.monotonic(), [], []
    if not samples:
        return {"state": "unknown", "reason": "no golden samples"}
    if not built.networks:
        return {"state": "unknown", "reason": "it has no engine: PyTorch would be compared with itself"}
    for sample in samples:
        args, kwargs = called(call, sample.inputs)
        try:
            compared = errors_of(pytree.tree_leaves(built.run_networks(*args, **kwargs)), sample.outputs)
        except Exception as error:  # noqa: BLE001 - the interpreter's or a check's, which is a result too
            traceback.print_exc()
            return {"state": "wrong", "reason": f"running: {_said(error)}"}
        if not compared:
            return {"state": "unknown", "reason": "no output is a tensor"}
        errors.append(max(compared))
        sizes.append([list(leaf.shape) for leaf in sample.inputs if isinstance(leaf, torch.Tensor)])
    limits, eager = [RIGHT[row.precision]] * len(errors), {}
    if row.precision in HALVES and max(errors) > RIGHT[row.precision]:
        eager = {"eager_errors": _eager_errors(row, samples)}
        limits = [max(limit, TIMES_EAGER * error) for limit, error in zip(limits, eager["eager_errors"], strict=True)]
    right = all(error <= limit for error, limit in zip(errors, limits, strict=True))
    return {
        "state": "right" if right else "wrong",
        "errors": errors,
        **eager,
        "sizes": sizes,
        "compare_seconds": round(time.monotonic() - began, 1),
    }


def _eager_errors(row: Row, samples: list[Any]) -> list[float]:
    """Returns the errors of eager PyTorch in the row's precision: what rounding alone costs this model."""
    from benchmarks.zoo.eager import Eager

    eager = Eager(row)
    return [eager.error(sample.inputs, sample.outputs) for sample in samples]


def called(call: Any, tensors: list[Any]) -> Any:
    """Returns the call with a sample's tensors; other values stay."""
    leaves, structure = pytree.tree_flatten(call)
    taken = [new if isinstance(old, torch.Tensor) else old for old, new in zip(leaves, tensors, strict=True)]
    return pytree.tree_unflatten(taken, structure)


def errors_of(got: list[Any], want: list[Any]) -> list[float]:
    """Returns the error of each output that is a tensor; infinite where its shape or dtype is wrong.

    The error is relative L2 for floats, and the share of different elements for integers and booleans.
    """
    pairs = list(zip(got, want, strict=True))
    return [_error(a, b) for a, b in pairs if isinstance(b, torch.Tensor)]


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    if got.shape != want.shape or got.dtype != want.dtype:
        return float("inf")
    if not want.is_floating_point() and not want.is_complex():
        return float((got != want).double().mean()) if want.numel() else 0.0
    if not want.numel():
        return 0.0
    wide = torch.complex128 if want.is_complex() else torch.float64
    got, want = got.detach().to(wide), want.to(wide)
    error = ((got - want).norm() / want.norm().clamp(min=1e-12)).item()
    return error if error == error else float("inf")


def _peak_memory() -> int:
    """Returns the peak of this process's resident memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
