"""Golden I/O on the consumer's side: reading it and comparing with it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolchain.artifact import Artifact
from toolchain.checker.golden_header import malformed_golden
from toolchain.manifest.models import Tolerance, ValueSpec
from windows_side.execution.call import call_of
from windows_side.execution.samples import read_golden
from windows_side.verification.output_error import ErrorHistogram, OutputError


def compare_golden(artifact: Artifact, model: Any) -> list[OutputError]:
    """Runs every golden sample through a loaded model."""
    errors: list[OutputError] = []
    precision = artifact.manifest.precision
    for number, (inputs, wanted) in enumerate(read_golden(artifact)):
        args, kwargs = call_of(artifact.manifest, inputs, model.device)
        outputs = pytree.tree_leaves(model(*args, **kwargs))
        costs = (precision.errors if precision else None) or [None] * len(wanted)
        for spec, got, want, cost in zip(artifact.manifest.outputs, outputs, wanted, costs, strict=True):
            if want is not None:
                errors.append(replace(_compare(artifact, number, spec, got, want), precision_error=cost))
    return errors


def _compare(artifact: Artifact, number: int, spec: ValueSpec, got: torch.Tensor, want: torch.Tensor) -> OutputError:
    if got.shape != want.shape or got.dtype != want.dtype:
        raise malformed_golden(artifact, f"output {spec.name} is {got.dtype} {tuple(got.shape)}")
    golden = artifact.manifest.golden
    tolerance = golden.tolerance.get(str(spec.dtype)) if golden else None
    if tolerance is None:
        raise malformed_golden(artifact, f"the manifest gives no tolerance for {spec.dtype}")
    return compare_output(got, want, tolerance, name=spec.name, sample=number)


def compare_output(
    got: torch.Tensor, want: torch.Tensor, tolerance: Tolerance, *, name: str, sample: int = 0
) -> OutputError:
    """Compares two tensors of one shape, in fp64 on the CPU.

    Values that are equal, both NaN or the same infinity are no error; where only one of the two is finite, the error
    is infinite.
    """
    a, b = _doubles(got.detach().cpu()), _doubles(want.detach().cpu())
    same = (a == b) | (a.isnan() & b.isnan())
    finite = a.isfinite() & b.isfinite()
    difference = (a - b).abs().masked_fill(~finite, math.inf).masked_fill(same, 0.0)
    scale = b.masked_fill(~finite, 0.0)
    worst = _index_of_largest(difference)
    peak, largest = _largest(difference), _largest(scale.abs())
    return OutputError(
        sample=sample,
        name=name,
        dtype=str(want.dtype).removeprefix("torch."),
        shape=tuple(want.shape),
        relative_l2=_ratio(difference.norm().item(), scale.norm().item()),
        max_absolute=peak,
        max_relative=_ratio(peak, largest),
        cosine=_cosine(a.masked_fill(~finite, 0.0), scale) if peak < math.inf else math.nan,
        worst_index=worst,
        worst_got=a[worst].item() if a.numel() else 0.0,
        worst_want=b[worst].item() if b.numel() else 0.0,
        tolerance=tolerance,
        histogram=_histogram(difference / (largest or 1.0)),
    )


def _histogram(errors: torch.Tensor) -> ErrorHistogram:
    counted = errors[(errors > 0) & errors.isfinite()]
    places = (counted.log10() - ErrorHistogram.LOWEST) * ErrorHistogram.BINS_PER_DECADE
    bins = places.floor().clamp(0, ErrorHistogram.BINS - 1).long()
    counts = torch.bincount(bins, minlength=ErrorHistogram.BINS).tolist()
    return ErrorHistogram(int((errors == 0).sum()), tuple(counts), int(errors.isinf().sum()))


def _index_of_largest(value: torch.Tensor) -> tuple[int, ...]:
    if not value.numel():
        return ()
    return tuple(int(place) for place in torch.unravel_index(value.argmax(), value.shape))


def _largest(value: torch.Tensor) -> float:
    return value.max().item() if value.numel() else 0.0


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """1 where both are zero or empty, for then they agree."""
    lengths = (a.norm() * b.norm()).item()
    return (a.flatten() @ b.flatten()).item() / lengths if lengths else float(torch.equal(a, b))


def _doubles(value: torch.Tensor) -> torch.Tensor:
    """The value in fp64; complex numbers as pairs."""
    return (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).double()


def _ratio(error: float, scale: float) -> float:
    return 0.0 if error == 0 else error / scale if scale else math.inf
