"""Reads the address, dtype and shape of another library's array from a DLPack capsule. Nothing is copied."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13

# The manifest's names of dtypes, by DLDataTypeCode and bits. Each float8 type has a code of its own.
_DTYPES = {
    (0, 8): "int8", (0, 16): "int16", (0, 32): "int32", (0, 64): "int64",
    (1, 8): "uint8", (1, 16): "uint16", (1, 32): "uint32", (1, 64): "uint64",
    (2, 16): "float16", (2, 32): "float32", (2, 64): "float64", (4, 16): "bfloat16",
    (5, 64): "complex64", (5, 128): "complex128", (6, 8): "bool", (10, 8): "float8_e4m3fn", (12, 8): "float8_e5m2",
}  # fmt: skip


class _Device(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int32), ("index", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    """DLPack's DLTensor, which is the first member of a DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype = ctypes.c_void_p
_pointer_of.argtypes = (ctypes.py_object, ctypes.c_char_p)


@dataclass(frozen=True)
class Described:
    """An array as a capsule describes it.

    Attributes:
        pointer: the address of the elements.
        dtype: the dtype as the manifest names it, or DLPack's numbers where the manifest has no name for it.
        contiguous: whether the elements are contiguous in C order.
        kind: the DLDeviceType of the device.
        index: the index of the device.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: str
    contiguous: bool
    kind: int
    index: int


def describe(capsule: Any) -> Described:
    """Reads a capsule that nobody has consumed. The array's memory stays allocated as long as the capsule is kept."""
    tensor = ctypes.cast(_pointer_of(capsule, b"dltensor"), ctypes.POINTER(_Tensor)).contents
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None
    code, bits, lanes = tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes
    dtype = _DTYPES.get((code, bits)) if lanes == 1 else None
    return Described(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=shape,
        dtype=dtype or f"DLPack({code}, {bits}, {lanes})",
        contiguous=strides is None or is_contiguous(shape, strides, 1),
        kind=tensor.device.kind,
        index=tensor.device.index,
    )


def is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...], unit: int) -> bool:
    """Whether strides are those of C order; the stride of a size of 1 does not matter.

    Args:
        unit: the stride of neighbours: the element's size for strides in bytes, 1 for strides in elements.
    """
    if 0 in shape:
        return True
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != unit:
            return False
        unit *= size
    return True
