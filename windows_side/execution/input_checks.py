"""Checks of a call's inputs against the manifest, before any of them reaches an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toolchain.errors import UsageError
from toolchain.guards.describe import complaint
from toolchain.guards.evaluate import Guards
from toolchain.guards.grammar import Size
from toolchain.manifest.models import DynamicSize, ValueSpec, allows, size_ranges


class InputChecks:
    """Compares the leaves of a call with what the manifest says of them."""

    def __init__(self, specs: Sequence[ValueSpec], device: torch.device, guards: Sequence[str] = ()) -> None:
        self._specs = specs
        self._checks = [_LeafCheck(spec, device) for spec in specs]
        self._equal_sizes = _equal_sizes(specs)
        self._guards = Guards.parse(guards, size_ranges(specs))
        self._guarded = [_place(size, specs) for size in self._guards.sizes]
        self._last_sizes: Sequence[int] | None = None

    def __call__(self, leaves: Sequence[Any]) -> None:
        """Refuses what the engines cannot take.

        Raises:
            UsageError: an input is on another device, of another dtype, or outside its range, or the sizes violate a
                guard.
        """
        for check, leaf in zip(self._checks, leaves, strict=True):
            check(leaf)
        for places in self._equal_sizes:
            self._require_equal(places, leaves)
        if self._guarded:
            self._require_guards([leaves[index].shape[dim] for index, dim in self._guarded])

    def _require_guards(self, sizes: Sequence[int]) -> None:
        if sizes == self._last_sizes:
            return
        if (rule := self._guards.violated(sizes)) is not None:
            raise UsageError(
                complaint(rule, dict(zip(self._guards.sizes, sizes, strict=True))),
                where="inputs",
                remedy="`trtcross inspect` lists what sizes must be",
            )
        self._last_sizes = sizes

    def _require_equal(self, places: list[tuple[int, int]], leaves: Sequence[Any]) -> None:
        sizes = {leaves[index].shape[dim] for index, dim in places}
        if len(sizes) > 1:
            words = [
                f"{self._specs[index].name!r} has size {leaves[index].shape[dim]} in dimension {dim}"
                for index, dim in places
            ]
            raise UsageError(
                f"sizes that must be equal are not: {', '.join(words)}",
                where="inputs",
                remedy="`trtcross inspect` shows equal sizes by the same symbol",
            )


def _place(size: Size, specs: Sequence[ValueSpec]) -> tuple[int, int]:
    """An input's index and the dimension."""
    return next(index for index, spec in enumerate(specs) if spec.name == size.input), size.dim


def _equal_sizes(specs: Sequence[ValueSpec]) -> list[list[tuple[int, int]]]:
    """For each symbol that several dimensions have, their inputs and dimensions."""
    places: dict[str, list[tuple[int, int]]] = {}
    for index, spec in enumerate(specs):
        for dim, size in enumerate(spec.shape or []):
            if isinstance(size, DynamicSize):
                places.setdefault(size.symbol, []).append((index, dim))
    return [found for found in places.values() if len(found) > 1]


class _LeafCheck:
    """Compares one input with what the manifest says of it."""

    def __init__(self, spec: ValueSpec, device: torch.device) -> None:
        self._spec = spec
        self._dtype = getattr(torch, spec.dtype) if spec.dtype else None
        self._device = device
        self._shape = spec.shape or []
        self._static = torch.Size(self._shape) if all(isinstance(s, int) for s in self._shape) else None

    def __call__(self, leaf: Any) -> None:
        # The usual case first: this stands before every call.
        if (
            isinstance(leaf, torch.Tensor)
            and leaf.dtype is self._dtype
            and leaf.device == self._device
            and leaf.shape == self._static
        ):
            return
        self._check_each(leaf)

    def _check_each(self, leaf: Any) -> None:
        if self._dtype is None:
            if leaf != self._spec.value or type(leaf) is not type(self._spec.value):
                raise self._wrong(f"is {leaf!r}; it was fixed at {self._spec.value!r} when the model was exported")
            return
        if not isinstance(leaf, torch.Tensor):
            raise self._wrong(f"is a {type(leaf).__name__}, not a tensor")
        if leaf.dtype is not self._dtype:
            raise self._wrong(f"has dtype {leaf.dtype}, not {self._dtype}")
        if leaf.device != self._device:
            raise self._wrong(f"is on {leaf.device}, not on {self._device}")
        if leaf.shape != self._static:
            self._check_shape(leaf.shape)

    def _check_shape(self, shape: torch.Size) -> None:
        if len(shape) != len(self._shape):
            raise self._wrong(f"has {len(shape)} dimensions, not {len(self._shape)}")
        for dim, (size, wanted) in enumerate(zip(shape, self._shape, strict=True)):
            if not allows(wanted, size):
                only = f"outside {wanted.min} to {wanted.max}" if isinstance(wanted, DynamicSize) else f"not {wanted}"
                raise self._wrong(f"has size {size} in dimension {dim}, {only}")

    def _wrong(self, problem: str) -> UsageError:
        return UsageError(
            f"the input {self._spec.name!r} {problem}",
            where=f"input {self._spec.name}",
            remedy="`trtcross inspect` lists dtypes, devices and ranges",
        )
