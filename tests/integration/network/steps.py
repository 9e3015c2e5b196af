"""The parts of a recorded network: its tensors (slots) and the steps that compute them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from tests.integration.network.layers import Boundary, NetworkError

_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Slot:
    """A tensor of a network.

    Attributes:
        name: the tensor's name in TensorRT.
        dtype: its dtype.
        shape: its sizes, with -1 for a dynamic one; None where TensorRT knows none.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...] | None

    def check(self, value: Tensor, where: str) -> None:
        """Raises :class:`NetworkError` unless a value has this dtype and these sizes."""
        if value.dtype != self.dtype:
            raise NetworkError(f"{where}: {self.name!r} is {value.dtype}, and TensorRT says {self.dtype}")
        sizes = tuple(value.shape)
        if self.shape is not None and (
            len(sizes) != len(self.shape) or any(b not in (-1, a) for a, b in zip(sizes, self.shape, strict=True))
        ):
            raise NetworkError(f"{where}: {self.name!r} has shape {sizes}, and TensorRT says {self.shape}")


class Runnable(Protocol):
    """Computes some slots from others."""

    @property
    def inputs(self) -> tuple[int | None, ...]: ...

    @property
    def outputs(self) -> tuple[int, ...]: ...

    def run(self, arguments: Sequence[Tensor | None], slots: Sequence[Slot]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Step:
    """A layer with its tensors, as indices of the slots."""

    layer: str
    kind: str
    inputs: tuple[int | None, ...]
    outputs: tuple[int, ...]
    compute: Callable[..., Any] = field(repr=False)
    boundary: Boundary | None = None

    def run(self, arguments: Sequence[Tensor | None], slots: Sequence[Slot]) -> list[Tensor]:
        """Computes the outputs, and checks that each has the dtype and shape that TensorRT states."""
        where = f"layer {self.layer!r} ({self.kind})"
        try:
            results = self.compute(*map(_widened, arguments))
        except NetworkError as error:
            raise type(error)(f"{where}: {error}") from error
        except Exception as error:
            shapes = [None if value is None else (value.dtype, tuple(value.shape)) for value in arguments]
            raise NetworkError(f"{where} of {shapes}: {error}") from error
        results = [results] if isinstance(results, Tensor) else list(results)
        made = [slots[index] for index in self.outputs]
        results = [_rounded(result, slot.dtype) for result, slot in zip(results, made, strict=True)]
        for result, slot in zip(results, made, strict=True):
            slot.check(result, where)
        return results


def _widened(value: Tensor | None) -> Tensor | None:
    return value.float() if value is not None and value.dtype in _HALVES else value


def _rounded(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() and dtype in _HALVES else value


def run_steps(steps: Sequence[Runnable], values: dict[int, Tensor], slots: Sequence[Slot]) -> None:
    """Runs steps in order, and adds their results to ``values``."""
    for step in steps:
        arguments = [None if index is None else values[index] for index in step.inputs]
        values.update(zip(step.outputs, step.run(arguments, slots), strict=True))


AnyStep = TypeVar("AnyStep", bound=Runnable)


def in_order(steps: Sequence[AnyStep]) -> tuple[AnyStep, ...]:
    """Returns the steps in an order in which each follows those whose outputs it reads.

    Raises:
        NetworkError: there is no such order.
    """
    makers = {index: number for number, step in enumerate(steps) for index in step.outputs}
    graph = {number: {makers[index] for index in step.inputs if index in makers} for number, step in enumerate(steps)}
    try:
        return tuple(steps[number] for number in TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise NetworkError("the layers wait for one another") from error
