"""Finds the elements of a caller's arrays, and makes arrays of the same kind for results.

Arrays are numpy's, torch's, or any that have DLPack or ``__cuda_array_interface__``, on the host or on the GPU. torch
is never imported here: a caller who passes a tensor of torch has imported it.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np

from windows_side.engines import cuda
from windows_side.session import dlpack
from windows_side.session.device_array import DeviceArray
from windows_side.session.dtypes import numpy_dtype

# DLPack's number of the default stream, which is 0 elsewhere.
_LEGACY_STREAM = 1
# Makes the error about an input from what is wrong with it.
Complain = Callable[[str], Exception]


@dataclass(slots=True)
class Given:
    """An array that the caller has passed.

    Attributes:
        array: the array as it was passed.
        shape: its sizes.
        dtype: its dtype, as the manifest names it.
        pointer: the address of its elements, which are contiguous in C order.
        gpu: the index of the GPU that the elements are on, or None on the host.
        kind: makes arrays of the same kind.
        keeps: an object that keeps the elements' memory allocated.
        stream: the stream whose work computes the elements, where the array states one.
        copied: whether ``pointer`` is the address of a copy in C order.
        read_only: whether the array must not be written to.
    """

    array: Any
    shape: tuple[int, ...]
    dtype: str
    pointer: int
    gpu: int | None
    kind: Kind
    keeps: Any = None
    stream: int | None = None
    copied: bool = False
    read_only: bool = False


class Kind:
    """A library's arrays on the host or on one GPU.

    Attributes:
        on_gpu: whether results stay on the GPU.
    """

    on_gpu = False

    def empty(self, shape: tuple[int, ...], dtype: str) -> tuple[Any, int]:
        """Makes a new array, and returns it with the address of its elements."""
        raise NotImplementedError

    def address(self, array: Any, dtype: Any, gpu: int) -> int:
        """Returns the address of the elements of one of the library's arrays, for an engine to read in place.

        Args:
            dtype: the dtype that the array must have, as :meth:`dtype` returns it.
            gpu: the index of the GPU on which the array must be.

        Returns:
            0 where it is not such an array, or its dtype or order is different; :func:`read` then finds out more.
        """
        return 0

    def dtype(self, name: str) -> Any:
        """Returns the library's own dtype of a name of the manifest's."""
        return name

    def maker(self, shape: tuple[int, ...], dtype: str) -> Callable[[], Any]:
        """Returns a function that makes an array of this shape and dtype, as :meth:`empty` does, at each call."""
        return lambda: self.empty(shape, dtype)[0]

    def pointer(self, array: Any) -> int:
        """Returns the address of the elements of an array that :meth:`empty` or :meth:`maker` made."""
        raise NotImplementedError

    def cast(self, array: Any, dtype: str) -> Any:
        """Returns the array in another dtype; its elements must have been computed."""
        raise NotImplementedError

    def stream(self) -> int | None:
        """Returns the stream on which the library works now, or None where it has none."""
        return None

    def keep_for(self, array: Any, stream: int) -> None:
        """Tells the library that another stream uses an array, so that its memory is reused only after that work."""


class NumpyArrays(Kind):
    """numpy's arrays, in the host's memory."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> tuple[Any, int]:
        array = np.empty(shape, numpy_dtype(dtype))
        return array, array.ctypes.data

    def cast(self, array: Any, dtype: str) -> Any:
        with np.errstate(invalid="ignore"):  # a value that no integer can have is undefined in torch too
            return array.astype(numpy_dtype(dtype))


class TorchTensors(Kind):
    """torch's tensors, made by the torch that the caller has imported."""

    def __init__(self, gpu: int | None) -> None:
        self.on_gpu = gpu is not None
        self._torch = sys.modules["torch"]
        self._type = self._torch.Tensor
        self._index = gpu
        self._device = self._torch.device("cpu" if gpu is None else f"cuda:{gpu}")

    def empty(self, shape: tuple[int, ...], dtype: str) -> tuple[Any, int]:
        tensor = self._torch.empty(shape, dtype=getattr(self._torch, dtype), device=self._device)
        return tensor, tensor.data_ptr()

    def address(self, array: Any, dtype: Any, gpu: int) -> int:
        # This runs before every call, so each check is the fastest one that torch has.
        if (
            type(array) is self._type
            and array.dtype is dtype
            and array.get_device() == gpu
            and array.is_contiguous()
            and not array.is_neg()
        ):
            return int(array.data_ptr())
        return 0

    def pointer(self, array: Any) -> int:
        return int(array.data_ptr())

    def maker(self, shape: tuple[int, ...], dtype: str) -> Callable[[], Any]:
        # Inductor's generated code uses this function: on the current GPU, in a third of the time of torch.empty.
        make = getattr(self._torch._C._dynamo.guards, "_empty_strided_cuda", None)
        if make is None:
            return super().maker(shape, dtype)
        strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        return partial(make, shape, tuple(strides), getattr(self._torch, dtype))

    def cast(self, array: Any, dtype: str) -> Any:
        return array.to(getattr(self._torch, dtype))

    def dtype(self, name: str) -> Any:
        return getattr(self._torch, name)

    def stream(self) -> int | None:
        # Inductor's generated code uses this function too; torch.cuda.current_stream takes microseconds.
        return int(self._torch._C._cuda_getCurrentRawStream(self._index)) if self.on_gpu else None

    def keep_for(self, array: Any, stream: int) -> None:
        if self.on_gpu and isinstance(array, self._torch.Tensor):
            array.record_stream(self._torch.cuda.ExternalStream(stream, self._device))


class DeviceArrays(Kind):
    """Our own arrays, which other libraries take by ``__cuda_array_interface__``; results for cupy are cupy's."""

    on_gpu = True

    def __init__(self, library: str = "") -> None:
        self._library = library

    def address(self, array: Any, dtype: Any, gpu: int) -> int:
        if type(array) is DeviceArray and array.name == dtype and array.gpu.index == gpu and array.stream is None:
            return array.pointer
        return 0

    def pointer(self, array: Any) -> int:
        return int(array.pointer)

    def cast(self, array: Any, dtype: str) -> Any:
        # A cast on the GPU needs a kernel, which cupy has.
        return array.cast(dtype) if isinstance(array, DeviceArray) else array.astype(dtype)

    def finished(self, array: DeviceArray) -> Any:
        """Returns the array as the caller's library has it: cupy's for cupy, ours for others."""
        cupy = sys.modules.get("cupy") if self._library == "cupy" else None
        return array if cupy is None else cupy.asarray(array)


NUMPY, OURS = NumpyArrays(), DeviceArrays()
_TORCH: dict[int | None, TorchTensors] = {}


def read(value: Any, complain: Complain, own_stream: int) -> Given:
    """Finds an array's elements. Only numpy's and torch's arrays are copied, where they are not in C order.

    Args:
        value: what the caller has passed.
        complain: makes the error.
        own_stream: the stream on which the elements will be read; DLPack orders the array's work before it.

    Raises:
        Exception: that of ``complain``: the value is not an array, or is another library's and not in C order.
    """
    if isinstance(value, np.ndarray):
        return _numpy(value, value)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_tensor(value, torch, complain)
    if isinstance(value, DeviceArray):
        value.shared = True
        return Given(value, value.shape, value.name, value.pointer, value.gpu.index, OURS, value, stream=value.stream)
    if isinstance(value, np.generic):
        return _numpy(value, np.asarray(value))
    if hasattr(value, "__cuda_array_interface__"):
        return _cuda_array(value, complain)
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        return _dlpack(value, complain, own_stream)
    raise complain(f"is a {type(value).__name__}, not an array")


def cast(given: Given, dtype: str, stream: int) -> Given:
    """Casts an array to another dtype: torch's by torch, any other by numpy on the host."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(given.array, torch.Tensor):
        return _torch_tensor(given.array.to(getattr(torch, dtype)).contiguous(), torch, RuntimeError)
    array = np.empty(given.shape, numpy_dtype(given.dtype))
    if given.gpu is None:
        ctypes.memmove(array.ctypes.data, given.pointer, array.nbytes)
    elif array.nbytes:
        if given.stream is not None and given.stream != stream:
            cuda.synchronize(given.stream)
        cuda.copy_to_host(array.ctypes.data, given.pointer, array.nbytes, stream)
        cuda.synchronize(stream)
    made = NUMPY.cast(array, dtype)
    return _numpy(made, made)


def _numpy(value: Any, array: np.ndarray[Any, Any]) -> Given:
    ordered = array.flags.c_contiguous
    whole = array if ordered else np.ascontiguousarray(array)
    return Given(
        value, array.shape, array.dtype.name if array.dtype.isnative else str(array.dtype), whole.ctypes.data, None,
        NUMPY, whole, copied=not ordered, read_only=not array.flags.writeable or isinstance(value, np.generic),
    )  # fmt: skip


def _torch_tensor(tensor: Any, torch: Any, complain: Complain) -> Given:
    device = tensor.device
    if device.type not in ("cpu", "cuda"):
        raise complain(f"is on {device}, which a session does not read")
    if tensor.layout is not torch.strided:
        raise complain(f"is {tensor.layout}, not a dense tensor")
    gpu = device.index if device.type == "cuda" else None
    kind = _TORCH.get(gpu)
    if kind is None:
        kind = _TORCH[gpu] = TorchTensors(gpu)
    whole = tensor if tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg() else _resolved(tensor)
    return Given(
        tensor, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), whole.data_ptr(), gpu, kind, whole,
        copied=whole is not tensor,
    )  # fmt: skip


def _resolved(tensor: Any) -> Any:
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def _cuda_array(value: Any, complain: Complain) -> Given:
    described = value.__cuda_array_interface__
    shape, strides = tuple(described["shape"]), described.get("strides")
    dtype = np.dtype(described["typestr"])
    if strides is not None and not dlpack.is_contiguous(shape, tuple(strides), dtype.itemsize):
        _not_contiguous(complain)
    pointer, read_only = described["data"]
    name = getattr(value.dtype, "name", dtype.name) if hasattr(value, "dtype") else dtype.name
    try:
        gpu = cuda.gpu_of(pointer) if pointer else cuda.current_gpu()
    except ValueError as error:
        raise complain(f"says that it is on a GPU, and is {error}") from error
    return Given(
        value, shape, str(name), pointer, gpu, DeviceArrays(_library(value)), value,
        stream=described.get("stream"), read_only=bool(read_only),
    )  # fmt: skip


def _dlpack(value: Any, complain: Complain, own_stream: int) -> Given:
    kind = int(value.__dlpack_device__()[0])
    if kind in (dlpack.CPU, dlpack.CUDA_HOST):
        capsule = value.__dlpack__()
    elif kind in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        capsule = value.__dlpack__(stream=own_stream or _LEGACY_STREAM)
    else:
        raise complain(f"is on a device of DLPack's kind {kind}, which a session does not read")
    described = dlpack.describe(capsule)
    if not described.contiguous:
        _not_contiguous(complain)
    on_gpu = kind in (dlpack.CUDA, dlpack.CUDA_MANAGED)
    return Given(
        value, described.shape, described.dtype, described.pointer, described.index if on_gpu else None,
        DeviceArrays(_library(value)) if on_gpu else NUMPY, capsule,
    )  # fmt: skip


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _not_contiguous(complain: Complain) -> NoReturn:
    raise complain("is not in C order; pass a contiguous copy of it")
