"""Warnings about golden outputs: what they cannot prove, and where they differ from the model's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Leaves = Sequence[torch.Tensor | None]


@dataclass(frozen=True)
class GoldenSample:
    """The leaves of one call's arguments and results; None for a leaf that is not a tensor."""

    inputs: list[torch.Tensor | None]
    outputs: list[torch.Tensor | None]


def doubts_of_values(samples: Sequence[GoldenSample]) -> list[str]:
    """Returns a warning for each output that is not finite, or has the same number everywhere in every sample.

    For example, an untrained ViT of torchvision has a head of zeros.
    """
    doubts = []
    for index, values in enumerate(zip(*(sample.outputs for sample in samples), strict=True)):
        tensors = [value for value in values if value is not None and value.numel()]
        if not tensors:
            continue
        numbers = torch.cat([tensor.flatten() for tensor in tensors])
        for word, bad in (("NaN", numbers.isnan()), ("infinite", numbers.isinf())):
            if count := int(bad.sum()):
                doubts.append(f"the golden output {index} is {word} in {count} of its {numbers.numel()} values")
        if bool((numbers == numbers[0]).all()) and (numbers.numel() > 1 or not numbers[0]):
            everywhere = f"{numbers[0].item():g}" if numbers[0] else "zero"
            doubts.append(
                f"the golden output {index} is {everywhere} everywhere, so it cannot show wrong numbers: give the "
                "model trained or random weights"
            )
    return doubts


def doubts_of_dependence(outputs: Leaves, others: Leaves, tolerance: float) -> list[str]:
    """Returns a warning for each output that other inputs do not change by more than the tolerance.

    Args:
        outputs: the outputs for the example.
        others: the outputs for other inputs.
        tolerance: the relative L2 error within which an artifact's outputs are right.
    """
    doubts = []
    for index, (output, other) in enumerate(zip(outputs, others, strict=True)):
        if output is None or other is None or not output.numel():
            continue
        change = difference(other, output)
        if change == 0:
            doubts.append(f"the golden output {index} does not depend on the inputs: other inputs give the same")
        elif change <= tolerance and output.is_floating_point():
            doubts.append(
                f"the golden output {index} hardly depends on the inputs: others change it by less than its tolerance"
            )
    return doubts


def doubts_of_eager(runs: Sequence[tuple[Leaves, Leaves]]) -> list[str]:
    """Returns a warning for each output of the exported program that differs from the model's own.

    Args:
        runs: for each sample, the outputs of the exported program and those of the model itself.
    """
    worst: dict[int, float] = {}
    for outputs, eager in runs:
        if len(outputs) != len(eager):
            return ["the exported program and the model itself give different numbers of outputs"]
        for index, (output, other) in enumerate(zip(outputs, eager, strict=True)):
            if output is not None and other is not None and is_different(output, other):
                worst[index] = max(difference(output, other), worst.get(index, 0.0))
    return [
        f"the golden output {index} is what the exported program computes, and the model itself gives another: "
        f"relative difference {change:.0e}"
        for index, change in sorted(worst.items())
    ]


def are_different(outputs: Leaves, others: Leaves) -> bool:
    """Returns whether two runs on the same inputs differ by more than rounding."""
    pairs = zip(outputs, others, strict=False)
    return len(outputs) != len(others) or any(a is not None and b is not None and is_different(a, b) for a, b in pairs)


def same_results(results: Sequence[Any], others: Sequence[Any], rounding: float = 0.0) -> bool:
    """Returns whether two runs give equal leaves, including numbers and constants, except for rounding.

    Args:
        results: the leaves of one run.
        others: the leaves of the other.
        rounding: a relative difference that is allowed even if :func:`is_different` reports one.
    """
    return len(results) == len(others) and all(_same(a, b, rounding) for a, b in zip(results, others, strict=True))


def _same(a: Any, b: Any, rounding: float) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return bool(a == b)
    return not is_different(a, b) or difference(a, b) <= rounding


def is_different(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Returns whether two results of one computation differ by more than the square root of the dtype's epsilon."""
    exact = not (a.is_floating_point() or a.is_complex())
    return difference(a, b) > (0.0 if exact else math.sqrt(torch.finfo(a.dtype).eps))


def difference(got: torch.Tensor, want: torch.Tensor) -> float:
    """Returns ``||got - want|| / ||want||`` of floats, and the fraction of unequal elements of any other dtype.

    The result is infinite if shapes or dtypes differ, or if unequal values are not both finite. NaN equals NaN.
    """
    if got.shape != want.shape or got.dtype != want.dtype:
        return math.inf
    if not got.numel():
        return 0.0
    if not (got.is_floating_point() or got.is_complex()):
        return float((got != want).double().mean())
    a, b = _doubles(got), _doubles(want)
    apart = ~((a == b) | (a.isnan() & b.isnan()))
    if not (a.isfinite() & b.isfinite())[apart].all():
        return math.inf
    error, scale = (a - b)[apart].norm().item(), b[b.isfinite()].norm().item()
    return 0.0 if error == 0 else error / scale if scale else math.inf


def _doubles(value: Any) -> torch.Tensor:
    return (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).double()
