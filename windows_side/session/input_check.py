"""One leaf of a session's call: what it must be."""

from __future__ import annotations

from typing import Any

from toolchain.errors import UsageError
from toolchain.manifest.models import ValueSpec
from windows_side.calling.input_rules import check_fixed_value, check_shape, wrong_input
from windows_side.engines.cuda import Gpu
from windows_side.session.arrays import Given, read


class InputCheck:
    """Looks at one leaf of a call, and compares it with what the manifest says of it."""

    def __init__(self, spec: ValueSpec, name: str | None) -> None:
        """Keeps the rules of one input.

        Args:
            name: of its value in the program, None where it is no tensor.
        """
        self._spec = spec
        self._is_tensor = spec.dtype is not None and name is not None
        shape = tuple(spec.shape or ())
        self._static = shape if all(isinstance(size, int) for size in shape) else None

    def __call__(self, leaf: Any, gpu: Gpu, stream: int) -> Given | None:
        """Checks one input of a call.

        Raises:
            UsageError: the engines cannot take it.
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
