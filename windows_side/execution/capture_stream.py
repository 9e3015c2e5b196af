"""Streams for captures, on which nothing else runs.

torch hands out 32 streams in turn, to callers and engines alike. What another thread launches on a stream that is
capturing becomes part of that graph and is not run, or fails. So captures use streams that torch cannot hand out: they
are made with the CUDA driver API (``cuStreamCreate``).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from itertools import cycle

import torch

from toolchain.errors import IncompatibleError
from windows_side.execution.current_gpu import current_gpu

_STREAMS = 32
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: neither this stream nor the default stream waits for the other


def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Returns a GPU's next capture stream, for all captures of one program.

    Programs use different streams because torch, when it frees memory that was used on a stream, records an event on
    that stream: where another program's capture had just begun there, this ended in a segmentation fault. One program
    uses one stream, because its graphs share memory only on the same stream. After 32 programs the streams repeat.

    Raises:
        IncompatibleError: the driver makes no stream.
    """
    return next(_streams(device))


@cache
def _streams(device: torch.device) -> Iterator[torch.cuda.Stream]:
    """Makes a GPU's streams. They exist as long as the process: freed memory may refer to any of them."""
    with current_gpu(device):
        return cycle([_new_stream(device) for _ in range(_STREAMS)])


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    handle = ctypes.c_void_p()
    status = driver.cuStreamCreate(ctypes.byref(handle), ctypes.c_uint(_NON_BLOCKING))
    if status or not handle.value:
        raise IncompatibleError(
            f"the CUDA driver makes no stream: error {status}",
            where="load(cuda_graphs=True)",
            remedy="load it without cuda_graphs; `nvidia-smi` shows whether the GPU is well",
        )
    return torch.cuda.ExternalStream(handle.value, device)
