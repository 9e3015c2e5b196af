"""Sizes and numpy dtypes of the manifest's dtypes; numpy itself lacks bfloat16 and float8."""

from __future__ import annotations

import importlib
from functools import cache
from math import prod
from typing import Any

import numpy as np

from toolchain.errors import IncompatibleError, MissingComponentError
from toolchain.graph.values import ELEMENT_SIZES

_BEYOND_NUMPY = {name for name in ELEMENT_SIZES if name.startswith(("bfloat", "float8"))}


def size_in_bytes(shape: tuple[int, ...], dtype: str) -> int:
    """Returns the bytes of a contiguous array of a shape and a dtype.

    Raises:
        IncompatibleError: a session does not know the dtype.
    """
    try:
        return prod(shape) * ELEMENT_SIZES[dtype]
    except KeyError:
        raise IncompatibleError(
            f"a session has no tensors of dtype {dtype}", where="Session", remedy="use windows_side.load"
        ) from None


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Returns numpy's dtype of a name; those that numpy lacks are from ml_dtypes.

    Raises:
        MissingComponentError: ml_dtypes is needed and not installed.
    """
    if name not in _BEYOND_NUMPY:
        return np.dtype(name)
    try:
        ml_dtypes = importlib.import_module("ml_dtypes")
    except ImportError as error:
        raise MissingComponentError(
            f"numpy has no {name}, and ml_dtypes, which has it, is not installed",
            where="Session",
            remedy="python -m pip install ml_dtypes; or pass torch tensors or arrays on the GPU",
        ) from error
    return np.dtype(getattr(ml_dtypes, name))
