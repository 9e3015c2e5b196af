"""The ``.pt2`` file as a zip of stored entries under one root folder: strict to read, atomic to write."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from toolchain.errors import BuildFailedError, MalformedArtifactError, UsageError

ROOT = "artifact"
READ_CHUNK = 4 * 2**20
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x01
_ENTRY_LIMIT = 100_000
_ZIP64_THRESHOLD = 2**31 - 1


@dataclass(frozen=True)
class Entry:
    """An entry's name below the root folder, and where its bytes lie in the file."""

    name: str
    offset: int
    size: int
    crc: int


class Container:
    """A ``.pt2`` file opened for reading; only its directory is read until an entry is asked for.

    Raises:
        UsageError: there is no such file, or it cannot be opened.
        MalformedArtifactError: it is not a zip of stored entries under one root folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file: IO[bytes] = self.path.open("rb")
        except OSError as error:
            raise UsageError(
                f"the artifact cannot be opened: {error.strerror}",
                where=str(self.path),
                remedy="check the path and the permissions",
            ) from error
        try:
            self._stamp = self._file_stamp()
            self.entries: dict[str, Entry] = self._read_directory()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def chunks(self, offset: int, length: int, chunk: int = READ_CHUNK) -> Iterator[bytes]:
        """Yields the file's bytes from ``offset`` on, ``chunk`` at a time."""
        self._file.seek(offset)
        while length:
            data = self._file.read(min(chunk, length))
            if not data:
                raise self._malformed("it is shorter than its directory says")
            length -= len(data)
            yield data

    def read(self, name: str, *, size_limit: int | None = None) -> bytes:
        """One entry's bytes."""
        entry = self.entry(name)
        if size_limit is not None and entry.size > size_limit:
            raise self._malformed(f"the entry {name} has {entry.size} bytes, and at most {size_limit} are read")
        return b"".join(self.chunks(entry.offset, entry.size))

    def entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise self._malformed(f"it has no entry {name}") from None

    def sha256(self, name: str) -> str:
        entry = self.entry(name)
        digest = hashlib.sha256()
        for chunk in self.chunks(entry.offset, entry.size):
            digest.update(chunk)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Refuses a file that was written to since it was opened."""
        if self._file_stamp() != self._stamp:
            raise self._malformed("it changed while it was read")

    def _file_stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _read_directory(self) -> dict[str, Entry]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as error:
            raise self._malformed(f"it is not a zip archive: {error}") from error
        if not infos or len(infos) > _ENTRY_LIMIT:
            raise self._malformed(f"it has {len(infos)} entries")
        entries: dict[str, Entry] = {}
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            entry = self._check_entry(info, end)
            if entry.name in entries:
                raise self._malformed(f"it has the entry {entry.name} twice")
            entries[entry.name] = entry
            end = entry.offset + entry.size
        if len({info.filename.split("/", 1)[0] for info in infos}) != 1:
            raise self._malformed("its entries do not lie under one root folder")
        return entries

    def _check_entry(self, info: zipfile.ZipInfo, end: int) -> Entry:
        name = info.orig_filename
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise self._malformed(f"the entry {name!r} is compressed")
        if info.flag_bits & _ENCRYPTED:
            raise self._malformed(f"the entry {name!r} is encrypted")
        offset = self._data_offset(info, end)
        if offset + info.file_size > self._stamp[0]:
            raise self._malformed(f"the entry {name!r} reaches past the end of the file")
        return Entry(self._inner_name(name), offset, info.file_size, info.CRC)

    def _data_offset(self, info: zipfile.ZipInfo, end: int) -> int:
        if info.header_offset < end:
            raise self._malformed(f"the entry {info.orig_filename!r} overlaps another")
        self._file.seek(info.header_offset)
        raw = self._file.read(_LOCAL_HEADER.size)
        if len(raw) < _LOCAL_HEADER.size or raw[:4] != _LOCAL_MAGIC:
            raise self._malformed(f"the entry {info.orig_filename!r} has no local header")
        *_, name_length, extra_length = _LOCAL_HEADER.unpack(raw)
        if self._file.read(name_length) != info.orig_filename.encode("utf-8", "surrogateescape"):
            raise self._malformed(f"the local header of {info.orig_filename!r} names another entry")
        return info.header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)

    def _inner_name(self, name: str) -> str:
        root, _, inner = name.partition("/")
        parts = inner.split("/")
        if not root or not inner or any(part in ("", ".", "..") for part in parts):
            raise self._malformed(f"{name!r} is not a file below a root folder")
        if any(ord(c) < 32 or c in '\\:*?"<>|' for c in name):
            raise self._malformed(f"the entry name {name!r} holds a character that is not allowed")
        return inner

    def _malformed(self, problem: str) -> MalformedArtifactError:
        return MalformedArtifactError(
            f"the artifact is damaged: {problem}",
            where=str(self.path),
            remedy="get the file again, or build it again",
        )


class ContainerWriter:
    """Writes a ``.pt2`` file beside its destination and moves it into place when all of it is there.

    Leaving the ``with`` block by an exception leaves whatever was at the destination before.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __enter__(self) -> ContainerWriter:
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)
        except OSError as error:
            raise BuildFailedError(
                f"the output folder cannot be written to: {error.strerror}",
                where=str(self.path.parent),
                remedy="choose another path with -o",
            ) from error
        self._part = Path(name)
        self._file = os.fdopen(descriptor, "w+b")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
        except OSError as problem:
            raise self._write_failed(problem) from problem
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise self._write_failed(error) from error

    def add(self, name: str, data: bytes) -> str:
        """Writes one entry and returns its SHA-256."""
        self.stream(name, [data], len(data))
        return hashlib.sha256(data).hexdigest()

    def stream(self, name: str, chunks: Iterable[bytes | memoryview], size: int) -> None:
        """Writes one entry of ``size`` bytes from an iterable of chunks."""
        info = zipfile.ZipInfo(f"{ROOT}/{name}", (1980, 1, 1, 0, 0, 0))
        info.create_system = 3  # the same bytes on every host
        with self._zip.open(info, "w", force_zip64=size > _ZIP64_THRESHOLD) as entry:
            for chunk in chunks:
                entry.write(chunk)

    def _commit(self) -> None:
        self._zip.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        replace_file(self._part, self.path)

    def _write_failed(self, error: OSError) -> BuildFailedError:
        return BuildFailedError(
            f"the artifact could not be written: {error.strerror or error}",
            where=str(self.path),
            remedy="free some disk space or choose another path with -o; nothing was left half-written",
        )


def replace_file(source: Path, destination: Path) -> None:
    """Moves a finished file into place: readers see the old file or the new one, never a part.

    Raises:
        BuildFailedError: on Windows, another process has the destination open.
    """
    # Made private by mkstemp; give it the permissions that an ordinary new file would have.
    mask = os.umask(0)
    os.umask(mask)
    source.chmod(0o666 & ~mask)
    try:
        source.replace(destination)
    except PermissionError as error:
        raise BuildFailedError(
            "the destination is in use by another process",
            where=str(destination),
            remedy="close the program that has it open, or write to another path with -o",
        ) from error
    with contextlib.suppress(OSError):  # a folder cannot be opened, or synced, everywhere
        descriptor = os.open(destination.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
