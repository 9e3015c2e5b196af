"""Copies the weights of a network, which only refers to their memory."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch

from tests.integration.network.layers import NetworkError, torch_dtype


def copied(weights: Any) -> torch.Tensor | None:
    """Returns a flat copy of a layer's weights, or None where there are none.

    Args:
        weights: the value of a layer's property: an array, or ``Weights`` for dtypes that numpy lacks.
    """
    if isinstance(weights, np.ndarray):
        return torch.from_numpy(weights.reshape(-1).copy()) if weights.size else None
    if not weights.size:
        return None
    return _copied_through_memory(weights)


class _Weights(ctypes.Structure):
    """``nvinfer1::Weights``."""

    _fields_ = [("type", ctypes.c_int32), ("values", ctypes.c_void_p), ("count", ctypes.c_int64)]


def _copied_through_memory(weights: Any) -> torch.Tensor:
    """Copies bfloat16 weights, which the bindings give neither as an array nor as an address.

    A pybind11 object has its C++ object's address after Python's own header; type and count are checked.
    """
    address = ctypes.c_void_p.from_address(id(weights) + object.__basicsize__).value
    if address is None:
        raise NetworkError("weights without memory")
    raw = _Weights.from_address(address)
    if (raw.type, raw.count) != (int(weights.dtype), weights.size) or not raw.values:
        raise NetworkError(f"these bindings do not keep weights of {weights.dtype} where they are looked for")
    data = bytearray(ctypes.string_at(raw.values, weights.nbytes))
    return torch.frombuffer(data, dtype=torch_dtype(weights.dtype))
