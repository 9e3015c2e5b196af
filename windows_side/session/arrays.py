"""A caller's arrays: where their elements are, and new ones of the same kind for results.

numpy's, torch's, and what has DLPack or ``__cuda_array_interface__``, on the host or on the GPU. torch is never
imported here: whoever passes a tensor of torch has imported it.
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

# What DLPack calls the default stream, which is 0 elsewhere.
_LEGACY_STREAM = 1
# Makes the error of an input, of what is wrong with it.
Complain = Callable[[str], Exception]


@dataclass(slots=True)
class Given:
    """An array of the caller's.

    Attributes:
        array: as it was given.
        shape: its sizes.
        dtype: as the manifest names it.
        pointer: where its elements are, in C order with nothing between them.
        gpu: the index of the GPU that they are on, or None on the host.
        kind: makes arrays of the same kind.
        keeps: what keeps the elements where they are.
        stream: the stream whose work they are the result of, where the array says so.
        copied: whether ``pointer`` is that of a copy in C order.
        read_only: whether it may not be written to.
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
        """A new array, and where its elements are."""
        raise NotImplementedError

    def address(self, array: Any, dtype: Any, gpu: int) -> int:
        """Where the elements of one of the library's arrays are, for an engine to read right there.

        Args:
            dtype: as the library has it: :meth:`dtype`.
            gpu: the index of the GPU on which it must be.

        Returns:
            0 where it is no such array, or has another dtype or order: :func:`read` looks closer.
        """
        return 0

    def dtype(self, name: str) -> Any:
        """The library's own name of a dtype."""
        return name

    def maker(self, shape: tuple[int, ...], dtype: str) -> Callable[[], Any]:
        """Makes arrays as :meth:`empty` does, one after another."""
        return lambda: self.empty(shape, dtype)[0]

    def pointer(self, array: Any) -> int:
        """Where the elements of an array are that was made here."""
        raise NotImplementedError

    def cast(self, array: Any, dtype: str) -> Any:
        """The array in another dtype, when its elements are there."""
        raise NotImplementedError

    def stream(self) -> int | None:
        """The stream on which the library works now, if it has one."""
        return None

    def keep_for(self, array: Any, stream: int) -> None:
        """Tells the library that a stream of others uses an array, so that its memory serves again only behind that."""


class NumpyArrays(Kind):
    """Arrays of numpy, in the host's memory."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> tuple[Any, int]:
        array = np.empty(shape, numpy_dtype(dtype))
        return array, array.ctypes.data

    def cast(self, array: Any, dtype: str) -> Any:
        with np.errstate(invalid="ignore"):  # what no integer can be is as undefined in torch
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
        # What is asked for here is asked before every call: torch's quickest question of each kind.
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
        # As Inductor's generated code makes them: on the current GPU, in a third of the time of torch.empty.
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
        # Inductor's generated code asks in the same way; torch.cuda.current_stream takes microseconds.
        return int(self._torch._C._cuda_getCurrentRawStream(self._index)) if self.on_gpu else None

    def keep_for(self, array: Any, stream: int) -> None:
        if self.on_gpu and isinstance(array, self._torch.Tensor):
            array.record_stream(self._torch.cuda.ExternalStream(stream, self._device))


class DeviceArrays(Kind):
    """Arrays of our own, which other libraries take by ``__cuda_array_interface__``; cupy's where cupy's were given."""

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
        """The array as the caller's library has it."""
        cupy = sys.modules.get("cupy") if self._library == "cupy" else None
        return array if cupy is None else cupy.asarray(array)


NUMPY, OURS = NumpyArrays(), DeviceArrays()
_TORCH: dict[int | None, TorchTensors] = {}


def read(value: Any, complain: Complain, own_stream: int) -> Given:
    """Looks at an array; nothing is copied but what is on the host or torch's and not in C order.

    Args:
        own_stream: on which its elements will be read, where it asks for one.

    Raises:
        Exception: that of ``complain``: it is no array, or not in C order and not ours to copy.
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
    """An array in another dtype: torch's by torch, others by numpy on the host, wherever they are."""
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
