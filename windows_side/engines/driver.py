"""NVIDIA's driver, started by its own library: no bindings need be imported first, and Python's lock is not held."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_SUCCESS = 0
_FROM_SYSTEM32 = 0x800  # LOAD_LIBRARY_SEARCH_SYSTEM32: where drivers put it, and nobody else may


def start_driver(index: int) -> bool:
    """Creates a GPU's context, which CUDA's runtime finds later and keeps, as this does, until the process ends.

    Returns:
        Whether it did. What is wrong where it did not is for CUDA's runtime to tell, which tries again.
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
    """The driver's library, or None where there is none."""
    try:
        if sys.platform == "win32":
            return ctypes.WinDLL("nvcuda.dll", winmode=_FROM_SYSTEM32)
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
