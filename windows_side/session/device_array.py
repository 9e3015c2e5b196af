"""A result on the GPU, for callers whose library is not torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.errors import TrtcrossError
from windows_side.engines import cuda
from windows_side.engines.cuda import Gpu, Stream
from windows_side.session.dtypes import numpy_dtype, size_in_bytes
from windows_side.session.memory import DeviceMemory

# What the interface of CUDA arrays calls the default stream, which is 0 elsewhere.
_LEGACY_STREAM = 1


class DeviceArray:
    """An array on a GPU. cupy, numba, torch and others take it without a copy: ``cupy.asarray(array)``.

    Keep it as long as work that reads it may run. A session takes it as an input.

    Attributes:
        shape: its sizes.
        name: of its dtype, as the manifest has it.
        gpu: on which it is.
        stream: whose work it is the result of, where that may not be done.
        pointer: where its elements are, in C order.
        shared: whether work of others may still read it when it goes.
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
        """As numpy has it.

        Raises:
            MissingComponentError: numpy has none, and ml_dtypes is not installed.
        """
        return numpy_dtype(self.name)

    @property
    def nbytes(self) -> int:
        return size_in_bytes(self.shape, self.name)

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy on the host; waits for the elements.

        Raises:
            MissingComponentError: numpy has no such dtype, and ml_dtypes is not installed.
        """
        array = np.empty(self.shape, self.dtype)
        with self.gpu.current():
            cuda.copy_to_host(array.ctypes.data, self.pointer, self.nbytes, self.stream or 0)
            cuda.synchronize(self.stream or 0)
        return array

    def cast(self, dtype: str) -> DeviceArray:
        """A copy in another dtype, by way of the host."""
        array = self.numpy().astype(numpy_dtype(dtype))
        made = DeviceArray(self._memory, self.gpu, self.shape, dtype, None)
        if array.nbytes:
            with self.gpu.current():
                cuda.upload(made.pointer, array.tobytes())
        return made

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("an array on a GPU becomes one of numpy's by a copy alone")
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
        if self.shared:  # other libraries' work may still read it, on streams that we do not know
            try:
                with self.gpu.current():
                    cuda.synchronize_device()
            except (TrtcrossError, TypeError):
                return  # CUDA is gone at the end of a process, or some thread captures: the memory serves no more
        self._memory.give_back(pointer)
