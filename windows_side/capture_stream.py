"""A stream for captures that nothing else runs on.

torch hands out 32 streams in turn, to callers and engines alike. What another thread launches on a stream while it is
capturing becomes part of that graph and is not run: silently, an engine whose kernels were just being compiled computed
something else. So captures have a stream of their own, which torch cannot hand out: it is made with the CUDA driver API
(``cuStreamCreate``).
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch

from toolchain.errors import IncompatibleError
from windows_side.current_gpu import current_gpu

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream, nor that for it


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The one of a GPU, for as long as the process lives: there is one capture at a time.

    Raises:
        IncompatibleError: the driver refuses.
    """
    handle = ctypes.c_void_p()
    with current_gpu(device):
        status = _driver().cuStreamCreate(ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING))
    if status or not handle.value:
        raise IncompatibleError(
            f"the CUDA driver makes no stream: error {status}",
            where="load(cuda_graphs=True)",
            remedy="load it without cuda_graphs; `nvidia-smi` shows whether the GPU is well",
        )
    return torch.cuda.ExternalStream(handle.value, device)


def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
