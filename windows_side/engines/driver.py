"""Starts NVIDIA's driver by its own library, which needs no import of bindings and does not hold Python's lock."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_SUCCESS = 0
_FROM_SYSTEM32 = 0x800  # LOAD_LIBRARY_SEARCH_SYSTEM32: drivers install their libraries there, and only they may


def start_driver(index: int) -> bool:
    """Creates a GPU's primary context, which CUDA's runtime later uses; it is kept until the process ends.

    Returns:
        Whether it succeeded. Otherwise CUDA's runtime tries again, and reports what is wrong.
    """
    driver = _library()
    if driver is None:
        return False
    device, context = ctypes.c_int(), ctypes.c_void_p()
    return all(
        call() == _SUCCESS
        for call in (
            lambda: driver.cuInit(0),
            lambda: driver.cuDeviceGet(ctypes.byref(device), index),
            lambda: driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device),
        )
    )


def _library() -> Any:
    """Returns the driver's library, or None where there is none."""
    try:
        if sys.platform == "win32":
            return ctypes.WinDLL("nvcuda.dll", winmode=_FROM_SYSTEM32)
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
