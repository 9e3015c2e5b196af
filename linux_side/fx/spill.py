"""Weights go into a file and are mapped from there: pages that the system can drop and read again, not memory.

A build holds a model's weights for as long as it runs, and at its peak TensorRT holds them too.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch.export import ExportedProgram

from linux_side.fx.mapped_files import MappedFiles, file_state
from toolchain.errors import BuildFailedError

# Of a storage, in bytes: smaller ones stay in memory, where together they are little.
LEAST = 64 * 2**10
_PART = 16 * 2**20


class Spill:
    """Files of tensors, which have no name once they are mapped.

    Attributes:
        folder: where the files go; on a file system in memory nothing is gained.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mapped: set[int] = set()
        self._sources: dict[Path, tuple[int, int, int, int]] = {}

    def move(self, tensors: Iterable[torch.Tensor]) -> None:
        """Moves tensors into a file, in place: whoever holds one goes on with the same values.

        Tensors that share memory go on to share it. A write into one is in memory alone, and never in the file. What is
        mapped from a file already, as safetensors are, stays where it is.

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
        path.unlink()  # the pages stay until the last tensor goes, and a process that is killed leaves nothing
        for group, (offset, size) in zip(groups.values(), places, strict=True):
            storage = torch.frombuffer(memory, dtype=torch.uint8, offset=offset, count=size).untyped_storage()
            self._mapped.add(storage.data_ptr())
            for tensor in {id(tensor): tensor for tensor in group}.values():
                tensor.data = _like(tensor, storage)

    def require_unchanged(self) -> None:
        """Refuses what was built of files that were written to meanwhile: nobody knows what was read.

        Raises:
            BuildFailedError: one of them is another now.
        """
        for path, state in self._sources.items():
            try:
                now = file_state(path)
            except OSError:
                continue  # it has no name any more; its content is what it was
            if now != state:
                raise BuildFailedError(
                    "the model's weights were written to while they were built, and what was read is not known",
                    where=str(path),
                    remedy="build again when nothing writes there",
                )


def joined(matrices: Sequence[torch.Tensor], folder: Path) -> torch.Tensor:
    """The rows of several matrices as one, in a file without a name that is mapped.

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
    path.unlink()  # and no file stays open: there may be a thousand of these
    return mapped.view(-1, columns)


def tensors_of(program: ExportedProgram) -> list[torch.Tensor]:
    """A program's parameters, buffers and constants."""
    values = (*program.state_dict.values(), *program.constants.values())
    return [value for value in values if isinstance(value, torch.Tensor)]


def size_of(program: ExportedProgram) -> int:
    """Bytes of them, memory that is shared once."""
    storages = [tensor.untyped_storage() for tensor in tensors_of(program) if _is_plain(tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _write(path: Path, storages: Iterable[torch.UntypedStorage]) -> Iterator[tuple[int, int]]:
    """Writes storages one after the other, each at the beginning of a page; gives each one's offset and size."""
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
    """The tensor, of another storage. ``conj()`` and its ``imag`` change no memory: they are bits of the tensor."""
    mapped = torch.empty(0, dtype=tensor.dtype)
    mapped.set_(storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    mapped = mapped.conj() if tensor.is_conj() else mapped
    return torch._neg_view(mapped) if tensor.is_neg() else mapped


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is a tensor in memory, and nothing that torch or a library made of one."""
    ordinary = type(tensor) in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
    in_memory = ordinary and tensor.device.type == "cpu" and tensor.layout is torch.strided
    return in_memory and not tensor.is_quantized and not tensor.is_inference()
