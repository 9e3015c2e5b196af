"""What an artifact holds of golden I/O: the samples as safetensors, and how far outputs may differ from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from safetensors.torch import save
from torch.export import ExportedProgram

from linux_side.frontend.golden_doubts import GoldenSample
from linux_side.options import BuildOptions
from toolchain.manifest.models import Golden, Tolerance

# About ten times the unit roundoff of a factor (2**-11 in TF32 and fp16, 2**-8 in bf16), and about twice the worst
# measured error: 2.3e-3, 4.2e-3 and 3.2e-2 on an NVIDIA H200 (docs/benchmarks/gpu.md).
_TOLERANCES = {
    "fp32": Tolerance(relative_l2=5e-3, max_relative=1e-2),
    "fp16": Tolerance(relative_l2=1e-2, max_relative=2e-2),
    "bf16": Tolerance(relative_l2=5e-2, max_relative=1e-1),
}
_HALVES = {torch.bfloat16: "bf16", torch.float16: "fp16"}  # the coarser dtype first
_EXACT = Tolerance(relative_l2=0.0, max_relative=0.0)


def serialize_golden(samples: Sequence[GoldenSample]) -> bytes:
    """Returns the samples as safetensors, with the names ``SAMPLE.input.LEAF`` and ``SAMPLE.output.LEAF``."""
    tensors = {}
    for number, sample in enumerate(samples):
        for kind, leaves in (("input", sample.inputs), ("output", sample.outputs)):
            for index, leaf in enumerate(leaves):
                if leaf is not None:
                    tensors[f"{number}.{kind}.{index}"] = leaf.detach().clone().contiguous()
    return bytes(save(tensors))


def tolerance_of(precision: str) -> Tolerance:
    """Returns how far the outputs of an artifact in ``fp32``, ``fp16`` or ``bf16`` may differ from golden."""
    return _TOLERANCES[precision]


def precision_of(program: ExportedProgram) -> str:
    """Returns the precision of a program: that of weights in halves, or ``fp32``."""
    dtypes = {tensor.dtype for tensor in program.state_dict.values()}
    return next((name for dtype, name in _HALVES.items() if dtype in dtypes), "fp32")


def tolerance_for(options: BuildOptions, program: ExportedProgram) -> Tolerance:
    """Returns how far a build's outputs may differ from golden: the requested tolerance, or that of the precision."""
    asked = options.relative_l2
    if asked is None:
        return tolerance_of(options.halves or precision_of(program))
    return Tolerance(relative_l2=asked, max_relative=2 * asked)


def tolerance_at(dtype: torch.dtype, tolerance: Tolerance) -> Tolerance:
    """Returns the tolerance of an output by its dtype: whole numbers and booleans are exact."""
    return tolerance if dtype.is_floating_point or dtype.is_complex else _EXACT


def describe_golden(samples: Sequence[GoldenSample], tolerance: Tolerance) -> Golden:
    """Returns the manifest's record of golden I/O, with a tolerance for each dtype among the outputs."""
    dtypes = {leaf.dtype for sample in samples for leaf in sample.outputs if leaf is not None}
    by_dtype = {str(dtype).removeprefix("torch."): tolerance_at(dtype, tolerance) for dtype in sorted(dtypes, key=str)}
    return Golden(samples=len(samples), tolerance=by_dtype)
