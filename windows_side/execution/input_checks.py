"""Checks a call's tensors by the manifest, before any of them reaches an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toolchain.manifest.models import ValueSpec
from windows_side.calling.input_rules import SizeRules, check_fixed_value, check_shape, wrong_input


class InputChecks:
    """Checks the leaves of a call by the manifest's inputs and guards."""

    def __init__(self, specs: Sequence[ValueSpec], device: torch.device, guards: Sequence[str] = ()) -> None:
        self._checks = [_LeafCheck(spec, device) for spec in specs]
        self._rules = SizeRules(specs, guards)

    def __call__(self, leaves: Sequence[Any]) -> None:
        """Refuses inputs that the engines cannot take.

        Raises:
            UsageError: an input has the wrong device or dtype, or is outside its range, or sizes violate a guard.
        """
        for check, leaf in zip(self._checks, leaves, strict=True):
            check(leaf)
        if self._rules:
            self._rules([getattr(leaf, "shape", ()) for leaf in leaves])


class _LeafCheck:
    """Checks one input by its spec."""

    def __init__(self, spec: ValueSpec, device: torch.device) -> None:
        self._spec = spec
        self._dtype = getattr(torch, spec.dtype) if spec.dtype else None
        self._device = device
        shape = spec.shape or []
        self._static = torch.Size(shape) if all(isinstance(size, int) for size in shape) else None

    def __call__(self, leaf: Any) -> None:
        # The usual case comes first, because this runs before every call.
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
            check_fixed_value(self._spec, leaf)
            return
        if not isinstance(leaf, torch.Tensor):
            raise wrong_input(self._spec, f"is a {type(leaf).__name__}, not a tensor")
        if leaf.dtype is not self._dtype:
            raise wrong_input(self._spec, f"has dtype {leaf.dtype}, not {self._dtype}")
        if leaf.device != self._device:
            raise wrong_input(self._spec, f"is on {leaf.device}, not on {self._device}")
        if leaf.shape != self._static:
            check_shape(self._spec, leaf.shape)
