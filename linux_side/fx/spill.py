"""Moves weights into a mapped file, whose pages the system can drop and read again.

A build keeps a model's weights as long as it runs, and at its peak TensorRT has a copy of them too.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram

from linux_side.fx.mapped_files import FileState, MappedFiles, file_state, require_unchanged

# Storages of fewer bytes stay in memory: together they are small.
LEAST = 64 * 2**10
_PART = 16 * 2**20  # bytes that are copied at a time


class Spill:
    """Moves tensors into files that are deleted as soon as they are mapped.

    Attributes:
        folder: the folder for the files. On a file system in memory, nothing is gained.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: set[int] = set()
        self._sources: dict[Path, FileState] = {}

    def watch(self, sources: Mapping[Path, FileState]) -> None:
        """Adds files with mapped weights to those that must not change, in their state at an earlier time."""
        self._sources.update(sources)

    def move(self, tensors: Iterable[torch.Tensor]) -> None:
        """Moves the data of tensors into a file, in place: the tensor objects stay and keep their values.

        Tensors that share memory still share it. A later write into a tensor changes memory only, not the file. Tensors
        that are mapped from a file already, as with safetensors, stay where they are.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        groups: dict[int, list[torch.Tensor]] = {}
        files = MappedFiles()
        for tensor in filter(_is_plain, tensors):
            storage = tensor.untyped_storage()
            if storage.nbytes() < LEAST or storage.data_ptr() in self._mapped:
                continue
            if mapping := files.at(storage.data_ptr(), storage.nbytes()):
                if mapping.path:
                    self._sources.setdefault(mapping.path, file_state(mapping.path))
            else:
                groups.setdefault(storage.data_ptr(), []).append(tensor)
        if not groups:
            return
        path = self.folder / "weights"
        places = list(_write(path, [group[0].untyped_storage() for group in groups.values()]))
        with path.open("r+b") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        path.unlink()  # the mapping stays valid, and a killed process leaves no file
        for group, (offset, size) in zip(groups.values(), places, strict=True):
            storage = torch.frombuffer(memory, dtype=torch.uint8, offset=offset, count=size).untyped_storage()
            self._mapped.add(storage.data_ptr())
            for tensor in {id(tensor): tensor for tensor in group}.values():
                tensor.data = _like(tensor, storage)

    def require_unchanged(self) -> None:
        """Requires that the files with mapped weights have not changed since the build began.

        Raises:
            BuildFailedError: a file was written to or replaced, so what was read from it is unknown.
        """
        for path, state in self._sources.items():
            require_unchanged(path, state)


def joined(matrices: Sequence[torch.Tensor], folder: Path) -> torch.Tensor:
    """Concatenates the rows of several matrices into one matrix that is mapped from a deleted file.

    Args:
        matrices: (rows, columns) each, with the same columns and dtype.
        folder: the folder for the file.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    dtype, columns = matrices[0].dtype, matrices[0].shape[1]
    path = folder / "joined"
    with path.open("wb", buffering=0) as file:
        for matrix in matrices:
            for part in matrix.detach().split(max(1, _PART // (columns * dtype.itemsize))):
                _write_all(file, memoryview(part.contiguous().view(torch.uint8).numpy()).cast("B"))
        size = file.tell()
    mapped = torch.from_file(str(path), shared=False, size=size // dtype.itemsize, dtype=dtype)
    path.unlink()  # `from_file` keeps no file open, so there may be a thousand of these
    return mapped.view(-1, columns)


def sources_of(tensors: Iterable[torch.Tensor]) -> dict[Path, FileState]:
    """Returns the files that tensors are mapped from, in their present state."""
    files = MappedFiles()
    storages = (tensor.untyped_storage() for tensor in filter(_is_plain, tensors))
    mappings = (files.at(storage.data_ptr(), storage.nbytes()) for storage in storages)
    return {path: file_state(path) for path in {mapping.path for mapping in mappings if mapping} if path}


def tensors_of(program: ExportedProgram) -> list[torch.Tensor]:
    """Returns a program's parameters, buffers and constants."""
    values = (*program.state_dict.values(), *program.constants.values())
    return [value for value in values if isinstance(value, torch.Tensor)]


def size_of(program: ExportedProgram) -> int:
    """Returns the bytes of a program's plain tensors; shared memory counts once."""
    storages = [tensor.untyped_storage() for tensor in tensors_of(program) if _is_plain(tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _write(path: Path, storages: Iterable[torch.UntypedStorage]) -> Iterator[tuple[int, int]]:
    """Writes storages one after the other, each aligned to a page; yields the offset and the size of each."""
    with path.open("wb", buffering=0) as file:
        for storage in storages:
            offset = -(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE
            file.seek(offset)
            _write_all(file, memoryview(torch.empty(0, dtype=torch.uint8).set_(storage).numpy()))
            yield offset, storage.nbytes()


def _write_all(file: io.RawIOBase, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) or 0 :]


def _like(tensor: torch.Tensor, storage: torch.UntypedStorage) -> torch.Tensor:
    """Returns a view of ``storage`` like the tensor, including its conjugate and negative bits."""
    mapped = torch.empty(0, dtype=tensor.dtype)
    mapped.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    mapped = mapped.conj() if tensor.is_conj() else mapped
    return torch._neg_view(mapped) if tensor.is_neg() else mapped


def _is_plain(tensor: torch.Tensor) -> bool:
    """Returns whether a tensor is an ordinary strided tensor in memory: not a subclass, quantized, or for inference."""
    ordinary = type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    in_memory = ordinary and tensor.device.type == "cpu" and tensor.layout is torch.strided
    return in_memory and not tensor.is_quantized and not tensor.is_inference()
