"""Checks one leaf of a session's call by the manifest."""

from __future__ import annotations

from typing import Any

from toolchain.errors import UsageError
from toolchain.manifest.models import ValueSpec
from windows_side.calling.input_rules import check_fixed_value, check_shape, wrong_input
from windows_side.engines.cuda import Gpu
from windows_side.session.arrays import Given, read


class InputCheck:
    """Reads one leaf of a call, and checks it by its spec in the manifest."""

    def __init__(self, spec: ValueSpec, name: str | None) -> None:
        """Keeps the rules of one input.

        Args:
            spec: the input's spec in the manifest.
            name: the name of its value in the program; None where it is not a tensor.
        """
        self._spec = spec
        self._is_tensor = spec.dtype is not None and name is not None
        shape = tuple(spec.shape or ())
        self._static = shape if all(isinstance(size, int) for size in shape) else None

    def __call__(self, leaf: Any, gpu: Gpu, stream: int) -> Given | None:
        """Checks one input of a call.

        Args:
            leaf: what the caller has passed.
            gpu: the session's GPU.
            stream: the stream on which the input will be read.

        Returns:
            The array, or None where the input is not a tensor.

        Raises:
            UsageError: the engines cannot take the input.
        """
        if not self._is_tensor:
            check_fixed_value(self._spec, leaf)
            return None
        given = read(leaf, self._wrong, stream)
        if given.dtype != self._spec.dtype:
            raise self._wrong(f"has dtype {given.dtype}, not {self._spec.dtype}")
        if given.gpu is not None and given.gpu != gpu.index:
            raise self._wrong(f"is on cuda:{given.gpu}, not on {gpu}")
        if given.shape != self._static:
            check_shape(self._spec, given.shape)
        return given

    def _wrong(self, problem: str) -> UsageError:
        return wrong_input(self._spec, problem)
