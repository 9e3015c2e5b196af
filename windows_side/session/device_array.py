"""The class of results on the GPU for callers whose library is not torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.errors import TrtcrossError
from windows_side.engines import cuda
from windows_side.engines.cuda import Gpu, Stream
from windows_side.session.dtypes import numpy_dtype, size_in_bytes
from windows_side.session.memory import DeviceMemory

# The number of the default stream in ``__cuda_array_interface__``; it is 0 elsewhere.
_LEGACY_STREAM = 1


class DeviceArray:
    """An array on a GPU. cupy, numba, torch and others take it without a copy: ``cupy.asarray(array)``.

    Keep it as long as work that reads it may run. A session accepts it as an input.

    Attributes:
        shape: its sizes.
        name: the name of its dtype, as in the manifest.
        gpu: the GPU that it is on.
        stream: the stream whose work computes it, where that may not have finished; else None.
        pointer: the address of its elements, in C order.
        shared: whether another library's work may still read it when it is released.
    """

    def __init__(
        self, memory: DeviceMemory, gpu: Gpu, shape: tuple[int, ...], dtype: str, stream: Stream | None
    ) -> None:
        self.shape = shape
        self.name = dtype
        self.gpu = gpu
        self.stream = stream
        self._memory = memory
        self.shared = False
        self.pointer = memory.take(size_in_bytes(shape, dtype))

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as numpy has it.

        Raises:
            MissingComponentError: numpy has no such dtype, and ml_dtypes is not installed.
        """
        return numpy_dtype(self.name)

    @property
    def nbytes(self) -> int:
        return size_in_bytes(self.shape, self.name)

    def numpy(self) -> np.ndarray[Any, Any]:
        """Returns a copy on the host; waits until the elements are computed.

        Raises:
            MissingComponentError: numpy has no such dtype, and ml_dtypes is not installed.
        """
        array = np.empty(self.shape, self.dtype)
        with self.gpu.current():
            cuda.copy_to_host(array.ctypes.data, self.pointer, self.nbytes, self.stream or 0)
            cuda.synchronize(self.stream or 0)
        return array

    def cast(self, dtype: str) -> DeviceArray:
        """Returns a copy on the GPU in another dtype, which is cast on the host."""
        array = self.numpy().astype(numpy_dtype(dtype))
        made = DeviceArray(self._memory, self.gpu, self.shape, dtype, None)
        if array.nbytes:
            with self.gpu.current():
                cuda.upload(made.pointer, array.tobytes())
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("an array on a GPU becomes a numpy array only by a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.shared = True
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer if self.nbytes else 0, False),
            "strides": None,
            "stream": None if self.stream is None else self.stream or _LEGACY_STREAM,
            "version": 3,
        }

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.name}, device={self.gpu})"

    def __del__(self) -> None:
        pointer = self.__dict__.get("pointer")
        if pointer is None:
            return
        if self.shared:  # another library's work may still read it, on unknown streams
            try:
                with self.gpu.current():
                    cuda.synchronize_device()
            except (TrtcrossError, TypeError):
                return  # CUDA has ended with the process, or a thread captures: this memory is not reused
        self._memory.give_back(pointer)
